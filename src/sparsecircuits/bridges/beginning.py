"""A new sparse model for a bridge to begin with."""

import dataclasses

import torch

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.start import start_sparse_
from sparsecircuits.training.config import TrainConfig


def new_sparse(dense: SparseTransformer, config: TrainConfig, seed: int = 0) -> SparseTransformer:
    """A model of a preset's width and density with a dense one's depth, vocabulary and tokenizer: random weights, as
    many as its budgets say, at random places (each step of the bridge's training chooses anew which ones stay)."""
    theirs = dense.config
    context = min(theirs.n_ctx, config.model.n_ctx)
    shape = dataclasses.replace(config.model, n_layer=theirs.n_layer, vocab_size=theirs.vocab_size, n_ctx=context)
    torch.manual_seed(seed)
    model = SparseTransformer(shape).to(dense.device)
    start_sparse_(model, dataclasses.replace(config.sparsity, start="uniform"))
    model.tokenizer, model.name = dense.tokenizer, "new"
    return model
