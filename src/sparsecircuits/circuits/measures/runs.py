"""What the measures run: the circuit, the model, and donors matched position by position."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.models.hooks import intervene
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import EVALUATION_ROWS, correct_of, length_order, pick_answers
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


def chunks(batch: PairBatch) -> Iterator[tuple[int, int, PairBatch]]:
    """(start, stop, prompts) of a batch, few enough at a time for memory."""
    for start in range(0, len(batch.last), EVALUATION_ROWS):
        stop = min(start + EVALUATION_ROWS, len(batch.last))
        yield start, stop, batch.rows(start, stop)


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
    found = []
    for start, stop, chunk in chunks(batch):
        width = chunk.tokens.shape[1]
        here = gating
        if gating is not None and donors is not None:
            here = replace(gating, ablation="resample", donors=donors.rows(start, stop, width))
        with contextlib.ExitStack() as stack:
            if here is not None:
                stack.enter_context(here.over(model, chunk))
            if changes is not None:
                stack.enter_context(intervene(model, changes(start, stop, width)))
            tokens, last = (torch.from_numpy(x).to(model.device) for x in (chunk.tokens, chunk.last))
            narrow = changes is None  # changes may want every position of the last layer
            found.append(model(tokens, last_only=last, narrow=narrow).float().cpu())
    return torch.cat(found)


def answers_of(logits: Float[Tensor, "n vocab"], batch: PairBatch) -> Float[Tensor, "n 2"]:
    """The logits of the two answers."""
    return pick_answers(logits, batch)


def prompt_losses(logits: Float[Tensor, "n 2"], correct: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Cross-entropy in nats per prompt; their mean is the task loss."""
    return F.cross_entropy(logits.float(), correct, reduction="none")


def losses_of(logits: Float[Tensor, "n 2"], batch: PairBatch) -> Float[Tensor, " n"]:
    """Cross-entropy in nats per prompt of a batch."""
    return prompt_losses(logits, correct_of(batch))


def ablated_as(circuit: Circuit, gating: Gating, ablation: Ablation) -> Gating:
    """A gating with another ablation than the circuit's. For the mean, each node's mean over pretraining text is
    known where the circuit's own ablation is the mean; otherwise only a circuit's nodes have theirs."""
    if ablation == "zero":
        return replace(gating, frozen=torch.zeros_like(gating.frozen), ablation="zero")
    return replace(gating, ablation=ablation)


@dataclass(frozen=True)
class Matched:
    """A pool of prompts to draw donors from. contrast [n]: the first position where a prompt differs from its
    pair's other one; what a position is to its prompt is told by that position and the last."""

    pool: PairBatch
    contrast: np.ndarray

    @classmethod
    def of(cls, pool: PairBatch) -> "Matched":
        """A pool from whole pairs."""
        other = pool.tokens[np.arange(len(pool.last)) ^ 1]
        shared = np.minimum(pool.last, pool.last[np.arange(len(pool.last)) ^ 1])
        different = (pool.tokens != other) & (np.arange(pool.tokens.shape[1])[None] <= shared[:, None])
        contrast = np.where(different.any(axis=1), different.argmax(axis=1), shared)
        return cls(pool, contrast)

    def draw(self, seed: int, *, same_class: bool = False) -> Donors:
        """Another random prompt of the pool for each of its prompts: of either class, or only of its own.

        Positions before the contrast are matched by their distance to it, the contrast with the contrast, and
        positions after it by their distance from the last token.
        """
        rng, n = np.random.default_rng(seed), len(self.pool.last)
        pairs = n // 2
        if pairs < 2:
            rows = np.arange(n) if same_class else np.arange(n) ^ 1
        else:
            pair = (np.arange(n) // 2 + rng.integers(1, pairs, n)) % pairs
            side = np.arange(n) % 2 if same_class else rng.integers(0, 2, n)
            rows = 2 * pair + side
        return Donors(self.pool.take(rows), self._places(rows))

    def _places(self, rows: np.ndarray) -> np.ndarray:
        here, there = self.contrast[:, None], self.contrast[rows][:, None]
        last, other_last = self.pool.last[:, None], self.pool.last[rows][:, None]
        place = np.broadcast_to(np.arange(self.pool.tokens.shape[1]), self.pool.tokens.shape)
        before = np.clip(place - here + there, 0, np.maximum(there - 1, 0))
        after = np.clip(place - last + other_last, np.minimum(there + 1, other_last), other_last)
        return np.where(place < here, before, np.where(place == here, there, after))
