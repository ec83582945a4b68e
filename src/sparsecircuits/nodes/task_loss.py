"""The task loss: cross-entropy over the two candidate tokens at the last position."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.narrow import logits_at
from sparsecircuits.tasks import PairBatch

EVALUATION_ROWS = 64  # prompts a forward pass at most, to bound memory; even, so that pairs stay together


def candidate_logits(
    model: SparseTransformer, batch: PairBatch, gating: Gating | None = None, narrow: bool = True
) -> Float[Tensor, "n 2"]:
    """Logits of the two answers after each prompt, in one forward pass; differentiable.

    narrow: the last layer's sites show the last position alone, [2N, 1, width] (see `nodes.narrow`).
    """
    device = model.device
    tokens, last = torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.last).to(device)
    with gating.over(model, batch, narrow=narrow) if gating is not None else contextlib.nullcontext():
        logits = logits_at(model, tokens, last, narrow=narrow)
    return pick_answers(logits, batch).float()


def pick_answers(logits: Float[Tensor, "n vocab"], batch: PairBatch) -> Float[Tensor, "n 2"]:
    """Logits of the two answers. Over a class the second is that of all tokens but the first together, so that the
    cross-entropy of the two is -log p and -log(1 - p) over the whole vocabulary."""
    if not batch.over_class:
        return logits[:, list(batch.answers)]
    first = torch.tensor(batch.answers[0], device=logits.device)
    rest = logits.float().index_fill(1, first[None], -torch.inf).logsumexp(dim=1)
    return torch.stack([logits[:, batch.answers[0]].float(), rest], dim=1)


@torch.no_grad()
def all_candidate_logits(
    model: SparseTransformer, batch: PairBatch, gating: Gating | None = None
) -> Float[Tensor, "n 2"]:
    """As `candidate_logits` for any number of pairs: in chunks of similar length, in the given order."""
    order, chunks = in_chunks(batch)
    logits = torch.cat([candidate_logits(model, chunk, gating) for chunk in chunks])
    return torch.empty_like(logits).index_copy_(0, torch.from_numpy(order).to(logits.device), logits)


def in_chunks(batch: PairBatch) -> tuple[Int[np.ndarray, " n"], list[PairBatch]]:
    """A batch cut into chunks of similar length, both sides of a pair together; and which rows they hold."""
    order = length_order(batch)
    return order, [chunk for _, _, chunk in chunks(batch.take(order))]


def length_order(batch: PairBatch) -> Int[np.ndarray, " n"]:
    """Rows from the shortest pair to the longest, both sides of a pair together."""
    longest = batch.last.reshape(-1, 2).max(axis=1)
    rows: np.ndarray = 2 * longest.argsort(kind="stable")[:, None] + [0, 1]
    return rows.flatten()


def correct_of(batch: PairBatch, device: torch.device | str = "cpu") -> Int[Tensor, " n"]:
    """Which answer is right, per prompt."""
    return torch.from_numpy(batch.correct).to(device)


def prompt_losses(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Binary cross-entropy in nats per prompt; chance is ln 2."""
    return F.cross_entropy(logits.float(), correct, reduction="none")


def task_loss(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """The mean of `prompt_losses`, so the average over both prompts of each pair.

    The released files store the sum over a pair, twice this.
    """
    return prompt_losses(logits, correct).mean()


def accuracy(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> float:
    """Share of prompts whose right answer has the larger logit."""
    return (logits.argmax(dim=-1) == correct).float().mean().item()


ORDER_TIE = 1e-5  # margins nearer than this, relative to their size, are equal: rounding orders nothing


def in_order(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> float:
    """Share of pairs whose two prompts stand in the right order: the margin of the first answer over the second is
    larger where the first is right. A tie counts as half. No bias of the answers, and no calibration, can change it.
    """
    margin = (logits[:, 0] - logits[:, 1]).double().reshape(-1, 2)
    gap = (margin[:, 0] - margin[:, 1]) * (1 - 2 * correct[::2].double())
    gap = torch.where(gap.abs() <= ORDER_TIE * (1 + margin.abs().amax(dim=1)), 0.0, gap)
    return ((1 + gap.sign()) / 2).mean().item()


def chunks(batch: PairBatch) -> Iterator[tuple[int, int, PairBatch]]:
    """(start, stop, prompts) of a batch, few enough at a time for memory."""
    for start in range(0, len(batch.last), EVALUATION_ROWS):
        stop = min(start + EVALUATION_ROWS, len(batch.last))
        yield start, stop, batch.rows(start, stop)
