"""Batches from a mix of sources by weight: shares are kept to within one window at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sparsecircuits.data.batches import Batch, BatchSampler
from sparsecircuits.data.shards import TokenData
from sparsecircuits.data.streams import BLOCK_TOKENS, StreamSampler
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.errors import UserError


class Sampler(Protocol):
    """Where batches come from. Its state goes into every checkpoint, so that a resumed run sees what an uninterrupted
    one would; under torchrun every process has one and all give the same batches."""

    def next(self) -> Batch:
        """The next batch: (inputs, targets), int64 [config.batch_size, n_ctx] each."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: numbers, strings, lists and dicts of these."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken."""


class WindowSampler(Sampler, Protocol):
    """A sampler that can be asked for any number of windows, as a mix asks its sources."""

    def take(self, count: int) -> Batch:
        """The next `count` windows: (inputs, targets), int64 [count, n_ctx] each."""


def open_sampler(
    data: TokenData,
    tokenizer: Tokenizer,
    n_ctx: int,
    batch_size: int,
    seed: int = 0,
    *,
    block_tokens: int = BLOCK_TOKENS,
) -> Sampler:
    """The training batches of a corpus: shuffled epochs, or a mix of its sources by weight.

    block_tokens: tokens of a streamed source that are held and shuffled at a time.
    Raises UserError when a source has too few tokens or cannot be opened.
    """
    parts = data.manifest.get("mix")
    if not parts:
        return BatchSampler(data.train, n_ctx, batch_size, seed)
    samplers: list[WindowSampler] = []
    for part in parts:
        if "stream" in part:
            samplers.append(StreamSampler(part["stream"], tokenizer, n_ctx, batch_size, seed, block_tokens))
        else:
            samplers.append(BatchSampler(data.train[part["start"] : part["stop"]], n_ctx, batch_size, seed))
    return MixSampler([part["weight"] for part in parts], samplers, batch_size)


class MixSampler:
    """Draws each window from the source that is furthest behind its share.

    A small source starts its next epoch early, a large one is seen in part.
    """

    def __init__(self, weights: Sequence[float], samplers: Sequence[WindowSampler], batch_size: int) -> None:
        """weights: positive, adding up to 1."""
        self.weights = np.array(weights, dtype=np.float64)
        self.samplers, self.batch_size = list(samplers), batch_size
        self.drawn = np.zeros(len(samplers), dtype=np.int64)

    def take(self, count: int) -> Batch:
        """The next `count` windows: (inputs, targets), int64 [count, n_ctx] each."""
        order = np.empty(count, dtype=np.int64)
        for row in range(count):
            order[row] = np.argmax(self.weights * (self.drawn.sum() + 1) - self.drawn)
            self.drawn[order[row]] += 1
        rows: list[tuple[np.ndarray, Batch]] = []
        for place, sampler in enumerate(self.samplers):
            at = np.flatnonzero(order == place)
            if len(at):
                rows.append((at, sampler.take(len(at))))
        back = np.argsort(np.concatenate([at for at, _ in rows]))
        inputs, targets = (np.concatenate([batch[side] for _, batch in rows])[back] for side in (0, 1))
        return inputs, targets

    def next(self) -> Batch:
        """The next batch: (inputs, targets), int64 [batch_size, n_ctx] each."""
        return self.take(self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Where every source stands, as a small JSON-able dict."""
        return {
            "weights": self.weights.tolist(),
            "drawn": self.drawn.tolist(),
            "sources": [sampler.state_dict() for sampler in self.samplers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken. Raises UserError if it belongs to another mix."""
        if state.get("weights") != self.weights.tolist():
            raise UserError(f"cannot resume: the data was mixed by {state.get('weights')}, now by other weights")
        self.drawn = np.array(state["drawn"], dtype=np.int64)
        for sampler, saved in zip(self.samplers, state["sources"], strict=True):
            sampler.load_state_dict(saved)
