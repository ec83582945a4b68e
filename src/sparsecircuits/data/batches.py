"""Batches of token windows: shuffled epochs that resume exactly, and a fixed walk for validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparsecircuits.errors import UserError
from sparsecircuits.seeds import checked_seed

Batch = tuple[np.ndarray, np.ndarray]


def _check(tokens: np.ndarray, n_ctx: int, batch_size: int) -> None:
    if n_ctx < 1 or batch_size < 1:
        raise UserError(f"n_ctx and batch_size must be at least 1, not {n_ctx} and {batch_size}")
    if len(tokens) < n_ctx + 1:
        raise UserError(
            f"the corpus has {len(tokens)} tokens, too few for a context of {n_ctx} (it takes {n_ctx + 1}); "
            "use more data or a shorter context"
        )


def cut_windows(tokens: np.ndarray, starts: np.ndarray, n_ctx: int) -> Batch:
    """(inputs, targets), int64 [len(starts), n_ctx]; targets are the inputs one token later."""
    rows = np.stack([tokens[start : start + n_ctx + 1] for start in starts.tolist()]).astype(np.int64)
    return rows[:, :-1], rows[:, 1:]


class BatchSampler:
    """Endless batches of windows, all decided by `seed`.

    Each epoch cuts the corpus at a new random offset and visits every window once, in a new order; a batch
    may run over into the next epoch.
    """

    def __init__(self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int = 0) -> None:
        """`tokens` is one-dimensional. Raises UserError if it is shorter than n_ctx + 1."""
        _check(tokens, n_ctx, batch_size)
        self.tokens = tokens
        self.n_ctx = n_ctx
        self.batch_size = batch_size
        self.seed = checked_seed(seed)
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        spare = len(self.tokens) - 1
        offset = int(rng.integers(min(self.n_ctx, spare - self.n_ctx + 1)))
        count = (spare - offset) // self.n_ctx
        self._starts = offset + self.n_ctx * rng.permutation(count)
        self.epoch = epoch
        self.position = 0

    def next(self) -> Batch:
        """The next batch: (inputs, targets), int64 [batch_size, n_ctx] each."""
        return self.take(self.batch_size)

    def take(self, count: int) -> Batch:
        """The next `count` windows: (inputs, targets), int64 [count, n_ctx] each."""
        parts: list[np.ndarray] = []
        missing = count
        while missing:
            if self.position == len(self._starts):
                self._start_epoch(self.epoch + 1)
            taken = self._starts[self.position : self.position + missing]
            self.position += len(taken)
            missing -= len(taken)
            parts.append(taken)
        return cut_windows(self.tokens, np.concatenate(parts), self.n_ctx)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.next()

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as a small JSON-able dict."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "n_ctx": self.n_ctx,
            "tokens": len(self.tokens),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken (the batch size may differ).

        Raises UserError if it belongs to other data, another context length or another seed.
        """
        own = self.state_dict()
        for name in ("seed", "n_ctx", "tokens"):
            if state.get(name) != own[name]:
                raise UserError(
                    f"cannot resume: the data order was saved with {name} {state.get(name)}, now {own[name]}"
                )
        self._start_epoch(int(state["epoch"]))
        if not 0 <= int(state["position"]) <= len(self._starts):
            raise UserError(f"cannot resume: position {state['position']} is outside the epoch")
        self.position = int(state["position"])


def validation_batches(
    tokens: np.ndarray, n_ctx: int, batch_size: int, max_tokens: int | None = None
) -> Iterator[Batch]:
    """The same windows every time, spread evenly over the tokens: int64 [≤ batch_size, n_ctx] pairs.

    At most `max_tokens` predictions (None: all), but at least one window; the last batch may be smaller.
    Raises UserError, at the call, if there are fewer than n_ctx + 1 tokens.
    """
    _check(tokens, n_ctx, batch_size)
    count = (len(tokens) - 1) // n_ctx
    wanted = count if max_tokens is None else min(count, max(1, max_tokens // n_ctx))
    starts = n_ctx * (np.arange(wanted) * count // wanted)
    return (cut_windows(tokens, starts[begin : begin + batch_size], n_ctx) for begin in range(0, wanted, batch_size))
