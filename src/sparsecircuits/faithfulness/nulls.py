"""Null controls: what the same pruning finds where there is nothing to find.

Pruning can find small circuits for nonsense, and in networks without any structure. So the same pruning, with the
same budget, runs on what has no circuit: the task with its labels shuffled, the task in a cipher, and the task on a
network whose weights are permuted within each matrix. None of these does a model do, so that it finds nothing there is
no evidence by itself. Others it can do (see `null_tasks`): the prompts with answers that it never says, a cipher's or
another task's. And the true task by nodes that are not the circuit's: random ones, as many in each site and joined as
the circuit is.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.faithfulness.null_tasks import Unsaid, loss_of_model, nonsense_task, shuffled_labels
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.evaluator import Evaluator, Point
from sparsecircuits.nodes.recording import recordings
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import drop_needless, smallest_prefix, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.tasks import Task

ControlName = Literal[
    "true", "shuffled_labels", "nonsense", "permuted_weights", "cipher", "other_answers", "random_nodes"
]
DOABLE: tuple[ControlName, ...] = ("cipher", "other_answers")
"""Those that a model may do, and that are not pruned where this one does not."""
CURVE_GROWTH = 4
RANDOM_DRAWS = 20
JOINED_FIRST = 1e6
"""How much likelier a node that is joined to what was drawn is than one that is not."""
BUDGET = PruneConfig(steps=100, pairs=16, eval_pairs=32, lr=1e-2)
"""The same for the true task and its nulls, so that sizes may be compared. Edges are not pruned."""


@torch.no_grad()
def permuted_network(model: SparseTransformer, seed: int) -> SparseTransformer:
    """A copy whose weights are permuted within each matrix (and bias): the same values, no structure."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    seen = set()
    for parameter in other.parameters():
        if parameter.data_ptr() not in seen:
            seen.add(parameter.data_ptr())
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    other.name = f"{model.name}, weights permuted"
    return other


def prompt_means(model: SparseTransformer, task: Task) -> Float[Tensor, " nodes"]:
    """Means of all nodes over the prompts of the task's training split: what stands in for means over pretraining
    text where a network was never trained."""
    space, batch = NodeSpace.of(model.config), task.encode(task.draw("train", 64))
    total, count = torch.zeros(space.size, dtype=torch.float64), 0
    for chunk, seen in recordings(model, batch, space.slices):
        real = torch.from_numpy(chunk.real)
        total += torch.cat([seen[site].double().cpu()[real].sum(dim=0) for site in space.slices])
        count += int(real.sum())
    return (total / count).float()


@dataclass(frozen=True)
class PrunedSize:
    """What a pruning with the budget found. n_nodes and n_edges are None when no set of nodes holds the target;
    best_loss: the lowest loss of the curve; curve: (nodes, edges, loss) of ever larger prefixes of the ranking, on
    training and validation prompts, calibrated; kept: the nodes."""

    n_nodes: int | None
    n_edges: int | None
    best_loss: float
    curve: list[Point]
    kept: Bool[Tensor, " nodes"] | None = None


def pruned_size(
    model: SparseTransformer,
    task: Task,
    frozen: Float[Tensor, " nodes"],
    target_loss: float,
    ablation: Ablation = "mean",
    config: PruneConfig = BUDGET,
) -> PrunedSize:
    """Prune nodes with a small budget, whether or not the whole model does the task.

    The search begins as `prune`'s does and bisects alike; but one leave-one-out, of small sets alone, is all the
    clean-up, and edges are counted and not pruned. frozen: the ablation values.
    """
    search = NodeSearch.of(model, task, frozen, target_loss, dataclasses.replace(config, ablation=ablation))
    evaluate, goal, tau = search.evaluate, search.goal, search.ranking()
    curve = []
    size = 1
    while size < evaluate.space.size:
        curve.append(evaluate.point(top_nodes(tau, size)))
        size *= CURVE_GROWTH
    found = smallest_prefix(tau, evaluate, goal)
    best = min(point[2] for point in curve)
    if found is None:
        return PrunedSize(None, None, best, curve)
    kept = drop_needless(top_nodes(tau, found), evaluate, goal, limit=40)
    nodes, edges, loss = evaluate.point(kept)
    return PrunedSize(nodes, edges, min(best, loss), curve, kept)


def joined_nodes(
    kept: Bool[Tensor, " nodes"], slices: Iterable[slice], edges: Edges, generator: torch.Generator
) -> Bool[Tensor, " nodes"]:
    """Random nodes, as many in each site as a set has. From the last site back to the first those are taken that an
    edge joins to what was drawn, as long as there are any: nodes drawn each by itself hardly ever meet.

    slices: of the sites, in the order of computation. edges: all of the model's.
    """
    drawn = torch.zeros_like(kept)
    for place in reversed(list(slices)):
        wanted = int(kept[place].sum())
        if wanted:
            joined = torch.zeros_like(kept).index_fill_(0, edges.source[drawn[edges.target]], True)[place]
            weights = torch.where(joined, JOINED_FIRST, 1.0)
            drawn[place.start + torch.multinomial(weights, wanted, generator=generator)] = True
    return drawn


def random_nodes(bound: Bound, task: Task, config: PruneConfig, seed: int) -> PrunedSize:
    """Sets of random nodes, as many in each site as the circuit has (see `joined_nodes`) and with no more edges,
    cleaned up as a pruned set is where one holds the target; the smallest of those, or that none does. The curve has a
    point a draw. Draws that come down to the circuit itself are left out: in a small model chance hits on it."""
    circuit, search = bound.circuit, _search(bound, task, config)
    evaluate, generator = search.evaluate, torch.Generator().manual_seed(seed)
    everywhere = evaluate.edges_between(torch.ones_like(bound.kept))
    curve, held = [], []
    for _ in range(RANDOM_DRAWS):
        drawn = joined_nodes(bound.kept, evaluate.space.slices.values(), everywhere, generator)
        between = evaluate.edges_between(drawn)
        order = torch.randperm(len(between), generator=generator)
        removed = between[order[len(circuit.edges) :]]
        loss = evaluate(drawn, removed).loss
        if loss <= search.goal:
            kept = _cleaned(drawn, removed, evaluate, search.goal)
            if not (kept & ~bound.kept).any():
                continue
            held.append((int(kept.sum()), len(evaluate.edges_between(kept)) - int(removed.between(kept).sum())))
        curve.append((int(drawn.sum()), len(between) - len(removed), loss))
    best = min((point[2] for point in curve), default=0.0)
    if not held:
        return PrunedSize(None, None, best, curve)
    nodes, edges = min(held, key=lambda size: size[::-1])
    return PrunedSize(nodes, edges, best, curve)


def _search(bound: Bound, task: Task, config: PruneConfig) -> NodeSearch:
    """Scores sets of nodes on the true task, with the circuit's target and ablation."""
    config = dataclasses.replace(config, ablation=bound.circuit.ablation)
    return NodeSearch.of(bound.model, task, bound.frozen, bound.circuit.target_loss, config)


def _cleaned(drawn: Bool[Tensor, " nodes"], removed: Edges, evaluate: Evaluator, goal: float) -> Bool[Tensor, " nodes"]:
    """What is left of a set that holds the goal when its needless nodes are gone."""
    return drop_needless(drawn, lambda nodes: evaluate(nodes, removed), goal, limit=40)


class Control(BaseModel):
    """What one pruning with the budget found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ControlName
    n_nodes: int | None
    """None: no set of nodes holds the target, of any size."""
    n_edges: int | None
    best_loss: float
    """The lowest loss of the curve, in nats."""
    times_smaller: float | None
    """Edges of this null's circuit over those of the true task's, with the same budget. Where the null has none: the
    model's edges over them, which is a lower bound. None for the true task, or where that has no circuit, and for
    random nodes that do not hold the target."""
    at_least: bool
    """times_smaller is a lower bound."""
    curve: tuple[tuple[int, int, float], ...]
    """(nodes, edges, loss) of ever larger prefixes of the ranking, or of every draw of random nodes."""
    loss_full: float | None = None
    """The whole model's on validation prompts, calibrated, in nats; None in cards that were made before it was
    measured. Above the target the model cannot do this: there is nothing to find. Of a null that a model may do,
    nothing is pruned then, and the curve is empty."""
    about: str | None = None
    """Whose answers these are, of another task's."""
    loss_on_task: float | None = None
    """Of this null's circuit on the true task, where the model can do the null and pruning finds one: on training and
    validation prompts, calibrated, in nats. At most the target, it is the true task's circuit, read off elsewhere."""

    def doable(self, target_loss: float) -> bool:
        """Whether the whole model holds the target: that pruning finds little or nothing is evidence then."""
        return self.loss_full is not None and self.loss_full <= target_loss

    def rivals(self, target_loss: float) -> bool:
        """Whether it is of something else than the task, so that a circuit as small speaks against the true one."""
        return self.loss_on_task is None or self.loss_on_task > target_loss


class Nulls(BaseModel):
    """The true task and its nulls, pruned alike, and random nodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_loss: float
    steps: int
    pairs_per_step: int
    seed: int
    true: Control
    nulls: tuple[Control, ...]


@dataclass(frozen=True)
class _Null:
    """What is pruned as the true task is: prompts, in a network whose frozen nodes have these values."""

    name: ControlName
    model: SparseTransformer
    task: Task
    frozen: Float[Tensor, " nodes"]
    about: str | None = None


def _to_prune(bound: Bound, task: Task, seed: int) -> Iterator[_Null]:
    """The true task and its nulls, each made when it is asked for."""
    model, frozen, circuit = bound.model, bound.frozen, bound.circuit
    yield _Null("true", model, task, frozen)
    yield _Null("shuffled_labels", model, shuffled_labels(task, seed), frozen)
    yield _Null("nonsense", model, nonsense_task(task, seed), frozen)
    network = permuted_network(model, seed)
    yield _Null(
        "permuted_weights", network, task, prompt_means(network, task) if circuit.ablation == "mean" else frozen
    )
    unsaid = Unsaid.of(model, task)
    if (cipher := unsaid.cipher(seed)) is not None:
        yield _Null("cipher", model, cipher, frozen)
    if (other := unsaid.of_another_task(circuit.target_loss)) is not None:
        yield _Null("other_answers", model, other, frozen, other.name.rpartition(" ")[2])


def null_controls(
    bound: Bound,
    task: Task,
    *,
    config: PruneConfig = BUDGET,
    seed: int = 0,
    report: Callable[[float, str], None] = lambda share, details: None,
) -> Nulls:
    """Prune the true task and its nulls with one budget and the circuit's target and ablation, and draw random nodes.

    The replication that asked for this (February 2026) found small circuits for nonsense and in random networks; a
    size means something only beside theirs. The permuted network's means are taken over the task's own prompts.
    """
    model, circuit = bound.model, bound.circuit
    config = dataclasses.replace(config, seed=seed)
    edges = sum(int(m.count_nonzero()) for name, m in sparse_matrices(model).items() if name.startswith("blocks"))
    controls: list[Control] = []
    true: PrunedSize | None = None
    for place, null in enumerate(_to_prune(bound, task, seed)):
        report(place / 6, f"pruning {null.name.replace('_', ' ')}")
        full = loss_of_model(null.model, null.task)
        if null.name in DOABLE and full > circuit.target_loss:
            size = PrunedSize(None, None, full, [])
        else:
            size = pruned_size(null.model, null.task, null.frozen, circuit.target_loss, circuit.ablation, config)
        true = true or size
        control = _control(null.name, size, true, edges)
        more = {"loss_full": full, "about": null.about}
        if null.name in DOABLE and size.kept is not None:
            more["loss_on_task"] = _search(bound, task, config).evaluate(size.kept).loss
        controls.append(control.model_copy(update=more))
    assert true is not None  # the first
    if circuit.nodes and (drawn := random_nodes(bound, task, config, seed)).curve:
        control = _control("random_nodes", drawn, true, edges)
        controls.append(control.model_copy(update={"loss_full": controls[0].loss_full}))
    return Nulls(
        target_loss=circuit.target_loss,
        steps=config.steps,
        pairs_per_step=config.pairs,
        seed=seed,
        true=controls[0],
        nulls=tuple(controls[1:]),
    )


def _control(name: ControlName, size: PrunedSize, true: PrunedSize, edges: int) -> Control:
    """The record of a pruning. Where nothing was pruned, or other sizes were not tried, nothing is said of how much
    smaller the true circuit is."""
    times, untried = None, size.n_edges is None and (name == "random_nodes" or not size.curve)
    if name != "true" and not untried and true.n_edges is not None:
        times = (edges if size.n_edges is None else size.n_edges) / max(1, true.n_edges)
    return Control(
        name=name,
        n_nodes=size.n_nodes,
        n_edges=size.n_edges,
        best_loss=size.best_loss,
        times_smaller=times,
        at_least=name != "true" and not untried and size.n_edges is None,
        curve=tuple(size.curve),
    )
