"""From a ranking of nodes or edges to a set: the smallest prefix that holds the target, cleaned up."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.nodes.evaluator import Score

Scorer = Callable[[Bool[Tensor, " size"]], Score]
Rises = Callable[[Bool[Tensor, " size"]], Float[Tensor, " size"]]
COARSE = 64  # estimates are not followed in parts finer than this share of the set
PATIENCE = 6  # parts that cannot go, one after the other, before new estimates are made
ENOUGH = 0.95  # a round of estimates that leaves a larger share than this is the last


def top_nodes(tau: Float[Tensor, " size"], k: int) -> Bool[Tensor, " size"]:
    """The k nodes or edges with the largest τ (ties: first in order of computation)."""
    order = tau.sort(descending=True, stable=True).indices[:k]
    return torch.zeros(tau.numel(), dtype=torch.bool).index_fill_(0, order, True)


def smallest_prefix(tau: Float[Tensor, " size"], evaluate: Scorer, target: float) -> int | None:
    """Bisect for the smallest k whose top-k set holds the target loss; None if even all of it misses.

    Begins at the number of gates that are on, where the answer is near.
    """
    size = tau.numel()
    low, high = 0, max(1, int((tau >= 0).sum()))  # low misses the target, high is to be shown to hold it
    while evaluate(top_nodes(tau, high)).loss > target:
        if high == size:
            return None
        low, high = high, min(size, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        if evaluate(top_nodes(tau, middle)).loss <= target:
            high = middle
        else:
            low = middle
    return high


def drop_needless(
    kept: Bool[Tensor, " size"],
    evaluate: Scorer,
    target: float,
    limit: int = 200,
    report: Callable[[int], None] | None = None,
    rises: Rises | None = None,
) -> Bool[Tensor, " size"]:
    """Remove nodes (or edges), the least missed first, while the target still holds.

    Rounds of leave-one-out: a round scores every single removal, then removes in that order whatever can go,
    many at a time where many can. Sets of more than `limit` would take too many evaluations: their order is that
    of rises(kept) [size], first-order estimates; without `rises` they are left alone.
    report(how many are left) before each round.
    """
    kept = kept.clone()
    while size := int(kept.sum()):
        if report is not None:
            report(size)
        members = kept.nonzero().flatten().tolist()
        if size <= limit:
            losses = {node: evaluate(_without(kept, [node])).loss for node in members}
            order = sorted((node for node in members if losses[node] <= target), key=losses.__getitem__)
            kept = _remove_in_order(kept, order, evaluate, target)
        elif rises is not None:
            estimates = rises(kept)
            order = sorted(members, key=lambda node: estimates[node].item())
            kept = _remove_in_order(kept, order, evaluate, target, max(1, size // COARSE), PATIENCE)
        left = int(kept.sum())
        if left == size or left > max(limit, ENOUGH * size):
            break
    return kept


def _remove_in_order(
    kept: Bool[Tensor, " size"],
    order: list[int],
    evaluate: Scorer,
    target: float,
    finest: int = 1,
    patience: int | None = None,
) -> Bool[Tensor, " size"]:
    """What is left when members go in this order, as long as the target holds: all at once, or halves of them, and so
    on down to `finest` at a time; those that cannot go are passed over, `patience` times in a row at most."""
    width, place, failures = len(order), 0, 0
    while place < len(order) and failures != patience:
        part = order[place : place + width]
        without = _without(kept, part)
        if evaluate(without).loss <= target:
            kept, place, failures = without, place + len(part), 0
        elif len(part) > finest:
            width = max(finest, len(part) // 2)
        else:
            place, failures = place + len(part), failures + 1
    return kept


def _without(kept: Bool[Tensor, " size"], members: list[int]) -> Bool[Tensor, " size"]:
    return kept.clone().index_fill_(0, torch.tensor(members), False)
