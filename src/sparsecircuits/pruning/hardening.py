"""Pruning against mixtures: challenges that a circuit fails are met, one after the other, until none is found.

A circuit that holds with all else ablated may fail when only a part of it is (nodes outside cancel each other). So
after pruning, fresh random subsets, and with `adversarial` ablation the worst small one that gradient ascent finds,
are tried on it; those that break it become conditions of the next pruning, which starts from the circuit and the nodes
that matter most under them. A set fixed beforehand would not do: pruning finds what is peculiar to it. What a round
has added stays, or nodes that may stand for one another would take turns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.circuits.schema import Hardening
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.nodes.attribution import first_order_rises
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.evaluator import Evaluator, Part
from sparsecircuits.pruning.mixtures import SHARES, Mixture, random_subset, worst_subset
from sparsecircuits.pruning.node_search import NodeSearch

ROUNDS = 6
"""Of challenging and pruning again."""
DRAWS = 8
"""Random subsets of each size in a round."""
NEW = 3
"""The worst challenges of a round become conditions, at most so many."""
ASCENT_STEPS, ASCENT_PAIRS = 12, 32


class Found(Part):
    """A circuit."""

    def removed(self, evaluate: Evaluator) -> Edges:
        """Nonzero weights between its nodes that are not among its edges."""
        between = evaluate.edges_between(self.nodes)
        return between[~self.has(between)]


def harden(
    found: Found,
    search: NodeSearch,
    again: Callable[[Tensor, Evaluator], Found],
    goal: float,
    tell: Callable[[str], None] = lambda details: None,
) -> tuple[Found, Hardening]:
    """A circuit that holds the target in nats under the subsets that were tried on it, and what came of trying.

    found: a circuit that holds the goal with all else ablated. again(ranking, evaluator): prunes once more, or raises
    TaskTooHard. Where no circuit holds under the challenges, or rounds run out, the last one is given, and the record
    says that it does not hold.
    """
    challenges: list[Part] = []
    first = found
    evaluate, target = search.evaluate, search.target_loss
    generator = torch.Generator().manual_seed(search.config.seed)
    for place in range(ROUNDS + 1):
        tell(f"challenging {int(found.nodes.sum())} nodes, {len(found.edges)} edges")
        broken, worst = _broken(found, search, generator)
        done = Hardening(rounds=place, challenges=len(challenges), worst=worst, held=not broken)
        if not broken or place == ROUNDS:
            return found, done
        challenges += broken
        tell(f"round {place + 1}: {len(challenges)} challenges to hold under")
        try:
            hard = evaluate.challenged(challenges, goal, target, found - first)
            found = again(_reranked(found, search, broken), hard)
        except TaskTooHard:
            return found, done
    raise AssertionError("a round returns")


def _broken(found: Found, search: NodeSearch, generator: torch.Generator) -> tuple[list[Part], float]:
    """The worst of the challenges tried that raise the loss above the target; and the largest loss of all."""
    evaluate, everything = search.evaluate, torch.ones_like(found.nodes)
    removed, edges = found.removed(evaluate), evaluate.edges_between(everything)
    tried = [_drawn(edges, len(found.nodes), share, generator) for share in SHARES for _ in range(DRAWS)]
    if search.config.ablation == "adversarial":
        tried.append(_ascended(found, removed, evaluate, generator))
    if search.forbidden is not None:  # they run in no set
        tried = [Part(challenge.nodes | search.forbidden, challenge.edges) for challenge in tried]
    losses = [evaluate.under(challenge, found.nodes, removed) for challenge in tried]
    order = sorted(range(len(tried)), key=losses.__getitem__, reverse=True)
    return [tried[place] for place in order[:NEW] if losses[place] > search.target_loss], max(losses)


def _drawn(edges: Edges, nodes: int, share: float, generator: torch.Generator) -> Part:
    off = random_subset(nodes + len(edges), share, generator) == 0
    return Part(off[:nodes], edges[off[nodes:]])


def _ascended(found: Found, removed: Edges, evaluate: Evaluator, generator: torch.Generator) -> Part:
    """The worst subset of at most as many nodes and edges as the circuit has nodes that gradient ascent finds."""
    mixture = Mixture(evaluate.model, evaluate.gating(found.nodes.float()), found.nodes, removed)
    most = min(max(1, int(found.nodes.sum())), mixture.size)
    few = evaluate.batches[0].rows(0, 2 * ASCENT_PAIRS)
    gates, _ = worst_subset(mixture, few, most, ASCENT_STEPS, generator)
    off = torch.zeros_like(found.nodes)
    off[(~found.nodes).nonzero().flatten()[gates[: mixture.nodes] == 0]] = True
    return Part(off, removed[gates[mixture.nodes :] == 0])


def _reranked(found: Found, search: NodeSearch, broken: list[Part]) -> Float[Tensor, " nodes"]:
    """A ranking whose head is the circuit; behind it stand nodes by how much the loss depends on them, either way and
    to first order, where the challenges ablate them."""
    evaluate = search.evaluate
    effect = torch.zeros(len(found.nodes))
    for challenge in broken:
        on = (found.nodes | ~challenge.nodes).float()
        rises = first_order_rises(evaluate.model, evaluate.challenged_batches, on, evaluate.gating)
        effect = torch.maximum(effect, rises.abs())
    tau = torch.where(found.nodes, 1.0, effect / effect.max().clamp_min(1e-30) - 1.5)
    return tau if search.forbidden is None else tau.masked_fill(search.forbidden, -torch.inf)
