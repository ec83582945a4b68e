"""How a model, or a circuit alone, goes on with prompts while nodes and edges are changed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.intervention import Intervention, Scope
from sparsecircuits.circuits.run_with import drawn, paired, run_with
from sparsecircuits.tasks import PairBatch


def continued(
    bound: Bound,
    batch: PairBatch,
    interventions: Sequence[Intervention] = (),
    *,
    tokens: int,
    stop: int | None = None,
    scope: Scope = "model",
    nodes: Sequence[str] | None = None,
    patch: PairBatch | None = None,
    pool: PairBatch | None = None,
    seed: int = 0,
    lock: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[list[int]]:
    """The most likely next tokens of each prompt, at most so many, while the changes are in force (see `run_with`).

    The prompts that "patch" and "resample" take values from go on with the same tokens, so that what was written
    stands for itself there; a change at one token stays at that token. It ends before the token `stop`, and where the
    context is full. lock: entered for each pass.
    """
    kinds = {change.kind for change in interventions}
    other = paired(batch, patch) if "patch" in kinds or patch is not None or len(batch.last) % 2 == 0 else None
    donors = drawn(batch, pool, seed) if "resample" in kinds else None
    found = []
    for row in range(len(batch.last)):
        new: list[int] = []
        longest = max(int(each.last[row]) for each in (batch, other, donors) if each is not None)
        while len(new) < min(tokens, bound.model.config.n_ctx - longest):
            with lock():
                outcome = run_with(
                    bound.model,
                    bound,
                    _after(batch, row, new),
                    [_at_its_token(change, len(new)) for change in interventions],
                    scope=scope,
                    nodes=nodes,
                    patch=_after(other, row, new) if other is not None else None,
                    pool=_after(donors, row, new) if donors is not None else None,
                    seed=seed,
                )
            token = int(outcome.logits[0].argmax())
            if token == stop:
                break
            new.append(token)
        found.append(new)
    return found


def _after(batch: PairBatch, row: int, new: list[int]) -> PairBatch:
    """One prompt with more tokens behind it."""
    one = batch.rows(row, row + 1)
    if not new:
        return one
    return replace(one, tokens=np.concatenate([one.tokens, [new]], axis=1), last=one.last + len(new))


def _at_its_token(change: Intervention, n_new: int) -> Intervention:
    return (
        change if change.before_last is None else change.model_copy(update={"before_last": change.before_last + n_new})
    )
