"""From a ranking of nodes or edges to a set: the smallest prefix that holds the target, cleaned up."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.nodes.evaluator import Score

Scorer = Callable[[Bool[Tensor, " size"]], Score]
Rises = Callable[[Bool[Tensor, " size"]], Float[Tensor, " size"]]
COARSE = 64  # estimates are not followed in parts finer than this share of the set
PATIENCE = 6  # parts that cannot go, one after the other, before new estimates are made
ENOUGH = 0.95  # a round of estimates that leaves a larger share than this is the last
MANY = 64  # members whose order is taken to first order, where a glance at each would be most of the work
DOUBTFUL = 1.25  # of the target: a member without which the loss at a glance is larger is not tried in a round


def top_nodes(tau: Float[Tensor, " size"], k: int) -> Bool[Tensor, " size"]:
    """The k nodes or edges with the largest τ (ties: first in order of computation); those with a τ of -inf never."""
    order = tau.sort(descending=True, stable=True).indices[: min(k, choosable(tau))]
    return torch.zeros(tau.numel(), dtype=torch.bool).index_fill_(0, order, True)


def choosable(tau: Float[Tensor, " size"]) -> int:
    """How many nodes or edges a ranking lets be chosen: all but those with a τ of -inf."""
    return int((tau > -torch.inf).sum())


def smallest_prefix(tau: Float[Tensor, " size"], evaluate: Scorer, target: float) -> int | None:
    """Bisect for the smallest k whose top-k set holds the target loss; None if even all that may be chosen misses.

    Begins at the number of gates that are on, where the answer is near.
    """
    size = choosable(tau)
    if not size:
        return None
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


@dataclass(frozen=True)
class Estimates:
    """Cheap stand-ins for an evaluation, for sets of more than `exact_below` nodes (or edges)."""

    glance: Scorer
    """The loss on a few of the prompts."""
    rises: Rises
    """About how much the loss rises without each member, to first order."""
    exact_below: int = 24
    """Sets of at most so many are evaluated as a whole for each member."""


def drop_needless(
    kept: Bool[Tensor, " size"],
    evaluate: Scorer,
    target: float,
    limit: int = 200,
    report: Callable[[int], None] | None = None,
    estimates: Estimates | None = None,
) -> Bool[Tensor, " size"]:
    """Remove nodes (or edges), the least missed first, while the target still holds.

    Rounds of leave-one-out: a round scores every single removal, then removes in that order whatever can go,
    many at a time where many can. With `estimates` the single removals are scored on a few prompts where there are
    many members, and to first order where there are more than `limit`; what goes, goes by `evaluate` all the same.
    Without them, sets of more than `limit` are left alone. report(how many are left) before each round.
    """
    kept = kept.clone()
    while size := int(kept.sum()):
        if report is not None:
            report(size)
        members = kept.nonzero().flatten().tolist()
        if size <= (limit if estimates is None else estimates.exact_below):
            losses = {node: evaluate(_without(kept, [node])).loss for node in members}
            order = sorted((node for node in members if losses[node] <= target), key=losses.__getitem__)
            kept = _remove_in_order(kept, order, evaluate, target)
        elif estimates is not None and size <= limit:
            kept = _glanced(kept, members, evaluate, target, estimates)
        elif estimates is not None:
            order = _by_rises(kept, members, estimates)
            kept = _remove_in_order(kept, order, evaluate, target, max(1, size // COARSE), PATIENCE)
        left = int(kept.sum())
        if left == size or left > max(limit, ENOUGH * size):
            break
    return kept


def _by_rises(kept: Bool[Tensor, " size"], members: list[int], estimates: Estimates) -> list[int]:
    """The least missed first, to first order."""
    rises = estimates.rises(kept)
    return sorted(members, key=lambda node: rises[node].item())


def _glanced(
    kept: Bool[Tensor, " size"], members: list[int], evaluate: Scorer, target: float, estimates: Estimates
) -> Bool[Tensor, " size"]:
    """What is left when members go, as long as the target holds, in the order of their losses at a glance, or to first
    order where they are many.

    Glances say which can go; whether the target holds without all of these is evaluated after the first, and after
    twice as many each time that it does. Where it does not, the longest beginning that holds is
    found by bisection. The few prompts of a glance are all easier or harder than the rest alike, so only differences
    from the set last evaluated are taken from it.
    """
    glance = estimates.glance
    offset = evaluate(kept).loss - glance(kept).loss
    if len(members) > MANY:
        order = _by_rises(kept, members, estimates)
    else:
        losses = {node: glance(_without(kept, [node])).loss + offset for node in members}
        order = sorted((node for node in members if losses[node] <= DOUBTFUL * target), key=losses.__getitem__)
    stride, place = 1, 0
    while place < len(order):
        gone, tried = _gone_at_a_glance(kept, order[place:], stride, target - offset, glance)
        held, loss = _longest_held(kept, gone, evaluate, target)
        if held == len(gone):
            place, stride = place + tried, 2 * stride
        else:  # what did not hold stays; what came after it is tried again
            place, stride = order.index(gone[held]) + 1, 1
        if held:
            kept = _without(kept, gone[:held])
            offset = loss - glance(kept).loss
    return kept


def _gone_at_a_glance(
    kept: Bool[Tensor, " size"], order: list[int], most: int, target: float, glance: Scorer
) -> tuple[list[int], int]:
    """Up to `most` members, in this order, that can go by glances; and how many were tried. Twice as many go at once
    each time that it can be, and half as many where it cannot."""
    gone: list[int] = []
    tried, together = 0, 1
    while tried < len(order) and len(gone) < most:
        some = order[tried : tried + min(together, most - len(gone))]
        if glance(_without(kept, [*gone, *some])).loss <= target:
            gone += some
            tried, together = tried + len(some), 2 * together
        elif len(some) > 1:
            together = len(some) // 2
        else:
            tried += 1
    return gone, tried


def _longest_held(kept: Bool[Tensor, " size"], gone: list[int], evaluate: Scorer, target: float) -> tuple[int, float]:
    """How many of the first of some members can go together (all, or as many as bisection finds), and the loss
    without them."""
    low, high, middle, held = 0, len(gone) + 1, len(gone), math.inf
    while high - low > 1:
        loss = evaluate(_without(kept, gone[:middle])).loss
        low, high, held = (middle, high, loss) if loss <= target else (low, middle, held)
        middle = (low + high) // 2
    return low, held


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
