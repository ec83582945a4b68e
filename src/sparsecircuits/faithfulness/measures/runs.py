"""What the measures run: the circuit, the model, and what becomes of their logits."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.models.hooks import intervene
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.narrow import logits_at
from sparsecircuits.nodes.task_loss import chunks, correct_of, length_order, prompt_losses
from sparsecircuits.tasks import PairBatch

Changes = Callable[[int, int, int], Mapping[str, Callable[[Tensor], Tensor]]]
"""(first row, last row + 1, width) of a chunk -> what to do at which sites."""


def by_length(batch: PairBatch) -> PairBatch:
    """The pairs of a batch from short to long, so that chunks of them hold little padding."""
    return batch.take(length_order(batch))


def first_pairs(batch: PairBatch, n: int) -> PairBatch:
    """n pairs spread evenly over a batch."""
    pairs = len(batch.last) // 2
    chosen = np.unique(np.linspace(0, pairs - 1, min(n, pairs)).round().astype(int))
    rows = (2 * chosen[:, None] + [0, 1]).flatten()
    taken = batch.take(rows)
    return taken.rows(0, len(rows))


def logits_by_chunk(
    model: SparseTransformer,
    batch: PairBatch,
    gating: Gating | None = None,
    *,
    donors: Donors | None = None,
    changes: Changes | None = None,
) -> Iterator[Float[Tensor, "rows vocab"]]:
    """What `final_logits` puts together, on the model's device, and differentiable."""
    for start, stop, chunk in chunks(batch):
        width = chunk.tokens.shape[1]
        here = gating
        if gating is not None and donors is not None:
            here = replace(gating, ablation="resample", donors=donors.rows(start, stop, width))
        with contextlib.ExitStack() as stack:
            narrow = changes is None  # changes may want every position of the last layer
            if here is not None:
                stack.enter_context(here.over(model, chunk, narrow=narrow))
            if changes is not None:
                stack.enter_context(intervene(model, changes(start, stop, width)))
            tokens, last = (torch.from_numpy(x).to(model.device) for x in (chunk.tokens, chunk.last))
            logits = logits_at(model, tokens, last, narrow=narrow).float()
        yield logits


@torch.no_grad()
def final_logits(
    model: SparseTransformer,
    batch: PairBatch,
    gating: Gating | None = None,
    *,
    donors: Donors | None = None,
    changes: Changes | None = None,
) -> Float[Tensor, "n vocab"]:
    """Logits over the vocabulary after each prompt.

    gating: what is frozen; with `donors`, what is frozen carries their activations. changes: further changes of
    activations, which act after the gating.
    """
    return torch.cat([x.cpu() for x in logits_by_chunk(model, batch, gating, donors=donors, changes=changes)])


def losses_of(logits: Float[Tensor, "n 2"], batch: PairBatch) -> Float[Tensor, " n"]:
    """Cross-entropy in nats per prompt of a batch."""
    return prompt_losses(logits, correct_of(batch))


def mean_of_draws(draws: list[Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
    """The mean over draws of a value per prompt."""
    return torch.stack(draws).mean(dim=0)


def ablated_as(gating: Gating, ablation: Ablation) -> Gating:
    """A gating with another ablation than the circuit's. For the mean, each node's mean over pretraining text is
    known where the circuit's own ablation is the mean; otherwise only a circuit's nodes have theirs."""
    if ablation == "zero":
        return replace(gating, frozen=torch.zeros_like(gating.frozen), ablation="zero")
    return replace(gating, ablation=ablation)
