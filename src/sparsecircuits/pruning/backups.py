"""Backup circuits: how many sets of nodes can do a task, each without the others, and what all of them need.

Pruning finds one circuit; a model may hold several, and then "the circuit" is one of several ways. So the circuit's
nodes are forbidden and the model is pruned again, and again, until the target cannot be held. Nodes that nothing
replaces, the necessary core, stay allowed: without them there is nothing to find.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.losses import measure
from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.files import read_json
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import ablation_values, training_means
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discovery import prune, require_doable
from sparsecircuits.pruning.discretise import choosable, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.tasks import Task

MOST_CIRCUITS = 8
LARGEST_FILE = 20_000_000  # bytes
SEEDS = 3

T = TypeVar("T")
Tell = Callable[[float, str], None]


class Way(BaseModel):
    """A circuit that does the task without the nodes of those before it, but for the core."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    """Source and target of each."""
    loss: float
    """Of the circuit alone on held-out prompts, calibrated, in nats."""
    loss_left: float
    """Of the whole model without this circuit's nodes and those of all before it, but for the core: on training and
    validation prompts (the worse), calibrated, in nats."""


class Overlap(BaseModel):
    """How much circuits that are pruned with different seeds share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_nodes: tuple[int, ...]
    """Of the circuit of each seed, the first way's first."""
    nodes: float
    """Jaccard index of the circuits' nodes, the mean over pairs of seeds: 1 for the same nodes, 0 for no common one."""
    edges: float
    """The same of their edges."""


class BackupRecord(BaseModel):
    """The circuits of a task that share nothing but a core."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_loss: float
    ways: tuple[Way, ...]
    """In the order in which they were found: each without the nodes of those before it, but for the core."""
    core: tuple[str, ...]
    """Nodes of the first circuit without which neither the rest of the model nor any prefix of its ranking holds the
    target: no other set was found to repair their removal."""
    exhausted: bool
    """Without the nodes of all ways, but for the core, nothing was found that holds the target. Otherwise the search
    ended at the largest number of circuits, and there may be more."""
    overlap: Overlap | None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save_backups` wrote. Raises UserError for a file that is none of these."""
        raw = read_json(path, "record of backup circuits", LARGEST_FILE)
        try:
            return cls.model_validate({key: raw[key] for key in raw if key != "task"})
        except (ValidationError, TypeError) as error:
            raise UserError(f"{path} is no record of backup circuits: run `sparsecircuits backups` again") from error

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        first, *others = self.ways
        if not first.nodes:
            return "No node has to run, so that there is no circuit to back up."
        core = f"a necessary core of {len(self.core)} nodes" if self.core else "no node"
        if not others:
            if len(self.core) == len(first.nodes):
                return f"There is no other way: each of the circuit's {len(first.nodes)} nodes is necessary."
            return (
                f"There is no backup circuit: {len(self.core)} of the circuit's {len(first.nodes)} nodes are necessary "
                "one by one, and without all of it nothing holds the target."
            )
        sizes = ", ".join(str(len(way.nodes)) for way in self.ways)
        more = "" if self.exhausted else "at least "
        return (
            f"There are {more}{len(self.ways)} circuits that share {core} (of {sizes} nodes): this is one of several."
        )


@dataclass(frozen=True)
class Backups:
    """What `backups` found: the circuits, and all else about them as data."""

    circuits: tuple[Circuit, ...]
    record: BackupRecord


def backups(
    model: SparseTransformer,
    task: Task,
    target_loss: float = 0.15,
    *,
    config: PruneConfig | None = None,
    tokens: np.ndarray | None = None,
    means: Float[Tensor, " nodes"] | None = None,
    first: Circuit | None = None,
    most: int = MOST_CIRCUITS,
    seeds: int = SEEDS,
    report: Tell | None = None,
) -> Backups:
    """Prune, forbid what was found, and prune again until the target cannot be held.

    The nodes of the first circuit that nothing replaces (`BackupRecord.core`) stay allowed, so that every circuit may
    have them; all else is in one circuit at most. config, tokens, means: as of `prune`. first: the circuit to begin
    with, by default the one that `prune` finds. most: circuits at most. seeds: how many seeds of pruning, the first
    circuit's among them, are compared; at 1 none. report(share done, what is going on) many times.

    Raises TaskTooHard when the whole model misses the target, UserError for a number out of range.
    """
    for name, value in (("most", most), ("seeds", seeds)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    config, tell = config or PruneConfig(), report or (lambda share, details: None)
    if means is None:
        means = training_means(model, tokens)
    space, parts = NodeSpace.of(model.config), most + seeds  # a circuit each, and the core

    def pruned(place: int, what: str, forbidden: Sequence[str] = (), seed: int = 0) -> Circuit:
        return prune(
            model,
            task,
            target_loss,
            config=dataclasses.replace(config, seed=config.seed + seed),
            means=means,
            forbidden=forbidden,
            report=lambda share, details: tell((place + share) / parts, f"{what}: {details}"),
        )

    require_doable(model, task, target_loss, config)
    circuits = [pruned(0, "circuit 1") if first is None else first]
    if circuits[0].losses is None:
        circuits[0] = circuits[0].model_copy(update={"losses": measure(model, circuits[0], task)})
    search = NodeSearch.of(model, task, ablation_values(config.carried, means), target_loss, config)
    core = necessary_core(
        search,
        space.mask(circuits[0].node_names),
        lambda share, details: tell((1 + share) / parts, f"the necessary core: {details}"),
    )
    used = space.mask(circuits[0].node_names) & ~core
    left = [_loss_without(search, used)]

    def another() -> Circuit | None:
        """A circuit without what was used; None where there is none, or none but the core."""
        if not used.any():
            return None
        try:
            found = pruned(1 + len(circuits), f"circuit {len(circuits) + 1}", space.names(used))
        except TaskTooHard:
            return None
        return found if (space.mask(found.node_names) & ~core).any() else None

    while len(circuits) < most and (found := another()) is not None:
        circuits.append(found)
        used = used | space.mask(found.node_names) & ~core
        left.append(_loss_without(search, used))
    others = [pruned(most + seed, f"seed {config.seed + seed}", seed=seed) for seed in range(1, seeds)]
    tell(1.0, f"{len(circuits)} circuits, a core of {int(core.sum())} nodes")
    record = BackupRecord(
        target_loss=target_loss,
        ways=tuple(_way(circuit, loss) for circuit, loss in zip(circuits, left, strict=True)),
        core=tuple(space.names(core)),
        exhausted=len(circuits) < most,
        overlap=overlap([circuits[0], *others]) if others else None,
    )
    return Backups(tuple(circuits), record)


def necessary_core(
    search: NodeSearch, kept: Bool[Tensor, " nodes"], report: Tell = lambda share, details: None
) -> Bool[Tensor, " nodes"]:
    """The nodes of a set without which nothing was found to hold the target: neither ever larger prefixes of a ranking
    (a model may hold nodes that work against the task), nor all the rest of the model. report: as of `backups`."""
    core, members = kept.clone(), kept.nonzero().flatten().tolist()
    if not members:
        return core

    def learning(step: int, _loss: float, _active: int) -> None:
        report(0.3 * step / search.config.steps, "ranking")

    tau = search.ranking(learning)
    for place, node in enumerate(members):
        report(0.3 + 0.7 * place / len(members), f"node {place + 1} of {len(members)}")
        core[node] = not _holds_without(search, tau, node)
    return core


def _holds_without(search: NodeSearch, tau: Float[Tensor, " nodes"], node: int) -> bool:
    """Whether some prefix of a ranking holds the target without a node: as many nodes as there are gates that are on,
    twice as many, and so on to all; small sets are cheap, so they come first."""
    left = tau.index_fill(0, torch.tensor(node), -torch.inf)
    size, largest = max(1, int((left >= 0).sum())), choosable(left)
    while search.evaluate(top_nodes(left, size)).loss > search.target_loss:
        if size >= largest:
            return False
        size = min(largest, 2 * size)
    return True


def _loss_without(search: NodeSearch, off: Bool[Tensor, " nodes"]) -> float:
    """The calibrated loss of the whole model without some nodes."""
    return search.evaluate(~off).loss


def _way(circuit: Circuit, loss_left: float) -> Way:
    assert circuit.losses is not None  # those that lacked them were measured
    return Way(
        nodes=tuple(circuit.node_names),
        edges=tuple((edge.source, edge.target) for edge in circuit.edges),
        loss=circuit.losses.circuit,
        loss_left=loss_left,
    )


def overlap(circuits: Sequence[Circuit]) -> Overlap:
    """How much circuits of one task share."""
    nodes = [set(circuit.node_names) for circuit in circuits]
    edges = [{(edge.source, edge.target) for edge in circuit.edges} for circuit in circuits]
    return Overlap(n_nodes=tuple(map(len, nodes)), nodes=_mean_jaccard(nodes), edges=_mean_jaccard(edges))


def _mean_jaccard(sets: Sequence[set[T]]) -> float:
    return float(np.mean([jaccard(a, b) for a, b in itertools.combinations(sets, 2)]))


def jaccard(a: set[T], b: set[T]) -> float:
    """|a ∩ b| / |a ∪ b|; of two empty sets 1."""
    return len(a & b) / len(a | b) if a or b else 1.0
