"""Null controls: what the same pruning finds where there is nothing to find.

Pruning can find small circuits for nonsense, and in networks without any structure. So the same pruning, with the
same budget, runs on three things that have no circuit: the task with its labels shuffled, the task in a cipher, and
the task on a network whose weights are permuted within each matrix. None of these does the model do, so that it finds
nothing there is weak evidence; the fourth is a task that it does, the true one, by nodes that are not the circuit's:
random ones, as many in each site.
"""

import copy
import dataclasses
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.evaluator import Point
from sparsecircuits.nodes.recording import recordings
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import drop_needless, smallest_prefix, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.tasks import Pair, PairBatch, Task

ControlName = Literal["true", "shuffled_labels", "nonsense", "permuted_weights", "random_nodes"]
NULLS: tuple[ControlName, ...] = ("shuffled_labels", "nonsense", "permuted_weights")
"""Those that are pruned like the true task."""
CURVE_GROWTH = 4
RANDOM_DRAWS = 20
BUDGET = PruneConfig(steps=100, pairs=16, eval_pairs=32, lr=1e-2)
"""The same for the true task and its nulls, so that sizes may be compared. Edges are not pruned."""


@dataclass(frozen=True)
class ChangedTask(Task):
    """A task that draws the pairs of another, and changes their tokens."""

    original: Task | None = None
    change: Callable[[PairBatch, list[Pair]], PairBatch] = lambda batch, pairs: batch

    @classmethod
    def of(cls, task: Task, name: str, change: Callable[[PairBatch, list[Pair]], PairBatch]) -> "ChangedTask":
        """A task with its batches changed; `name` is added to the task's."""
        return cls(
            name=f"{task.name}, {name}",
            description=task.description,
            answers=task.answers,
            sample=task.sample,
            tokenizer=task.tokenizer,
            original=task,
            loss=task.loss,
            change=change,
        )

    def draw(self, split: str, most: int, seed: int = 0) -> list[Pair]:
        """The original's pairs."""
        assert self.original is not None
        return self.original.draw(split, most, seed)

    def pairs(self, split: str = "train", n: int = 64, seed: int = 0) -> list[Pair]:
        """The original's pairs, all of them where it is a task of one's own that has fewer."""
        assert self.original is not None
        return self.original.pairs(split, n, seed)

    def encode(self, pairs: list[Pair]) -> PairBatch:
        """The original's tokens, changed."""
        assert self.original is not None
        return self.change(self.original.encode(pairs), pairs)


def shuffled_labels(task: Task, seed: int) -> Task:
    """The task with the two answers of each pair swapped by a coin: nothing in a prompt says which is right."""

    def change(batch: PairBatch, pairs: list[Pair]) -> PairBatch:
        heads = [zlib.crc32(f"{seed}/{pair.left}/{pair.right}".encode()) & 1 for pair in pairs]
        rows = np.arange(len(batch.last)) ^ np.repeat(np.array(heads), 2)
        # The prompts trade places and the answers stay: left is right, right is wrong, for half of the pairs.
        return dataclasses.replace(batch, tokens=batch.tokens[rows], last=batch.last[rows])

    return ChangedTask.of(task, "shuffled labels", change)


def nonsense_task(task: Task, seed: int) -> Task:
    """The task in a cipher: every token of its prompts, and both answers, replaced by another token, by one random
    permutation of the vocabulary. Lengths, contrasts and statistics are those of the task; the meaning is gone.
    """
    vocabulary = task.require_tokenizer().vocab_size
    cipher = np.random.default_rng([seed, 1]).permutation(vocabulary)

    def change(batch: PairBatch, pairs: list[Pair]) -> PairBatch:
        answers = (int(cipher[batch.answers[0]]), int(cipher[batch.answers[1]]))
        return dataclasses.replace(batch, tokens=cipher[batch.tokens], answers=answers)

    return ChangedTask.of(task, "nonsense", change)


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
    training and validation prompts, calibrated."""

    n_nodes: int | None
    n_edges: int | None
    best_loss: float
    curve: list[Point]


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
    return PrunedSize(nodes, edges, min(best, loss), curve)


def random_nodes(bound: Bound, task: Task, config: PruneConfig, seed: int) -> PrunedSize:
    """Sets of random nodes, as many in each site as the circuit has, cleaned up as a pruned set is where one holds the
    target; the smallest of those, or that none does. The curve has a point a draw."""
    circuit = bound.circuit
    config = dataclasses.replace(config, ablation=circuit.ablation)
    search = NodeSearch.of(bound.model, task, bound.frozen, circuit.target_loss, config)
    evaluate, generator = search.evaluate, torch.Generator().manual_seed(seed)
    curve, held = [], []
    for _ in range(RANDOM_DRAWS):
        drawn = torch.zeros_like(bound.kept)
        for place in evaluate.space.slices.values():
            order = torch.randperm(place.stop - place.start, generator=generator)
            drawn[place.start + order[: int(bound.kept[place].sum())]] = True
        curve.append(evaluate.point(drawn))
        if curve[-1][2] <= search.goal:
            held.append(evaluate.point(drop_needless(drawn, evaluate, search.goal, limit=40)))
    best = min(point[2] for point in curve)
    if not held:
        return PrunedSize(None, None, best, curve)
    nodes, edges, _ = min(held, key=lambda point: (point[1], point[0]))
    return PrunedSize(nodes, edges, best, curve)


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


class Nulls(BaseModel):
    """The true task and its nulls, pruned alike, and random nodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_loss: float
    steps: int
    pairs_per_step: int
    seed: int
    true: Control
    nulls: tuple[Control, ...]


def null_controls(
    bound: Bound,
    task: Task,
    *,
    config: PruneConfig = BUDGET,
    seed: int = 0,
    report: Callable[[float, str], None] = lambda share, details: None,
) -> Nulls:
    """Prune the true task and its three nulls with one budget and the circuit's target and ablation, and draw random
    nodes.

    The replication that asked for this (February 2026) found small circuits for nonsense and in random networks; a
    size means something only beside theirs. The permuted network's means are taken over the task's own prompts.
    """
    model, circuit = bound.model, bound.circuit
    config, frozen = dataclasses.replace(config, seed=seed), bound.frozen
    edges = sum(int(m.count_nonzero()) for name, m in sparse_matrices(model).items() if name.startswith("blocks"))
    found: dict[ControlName, PrunedSize] = {}
    for place, name in enumerate(("true", *NULLS)):
        report(place / 4, f"pruning {name.replace('_', ' ')}")
        network, prompts, values = model, task, frozen
        if name == "shuffled_labels":
            prompts = shuffled_labels(task, seed)
        elif name == "nonsense":
            prompts = nonsense_task(task, seed)
        elif name == "permuted_weights":
            network = permuted_network(model, seed)
            values = prompt_means(network, task) if circuit.ablation == "mean" else frozen
        found[name] = pruned_size(network, prompts, values, circuit.target_loss, circuit.ablation, config)
    if circuit.nodes:
        found["random_nodes"] = random_nodes(bound, task, config, seed)
    controls = [_control(name, size, found["true"], edges) for name, size in found.items()]
    return Nulls(
        target_loss=circuit.target_loss,
        steps=config.steps,
        pairs_per_step=config.pairs,
        seed=seed,
        true=controls[0],
        nulls=tuple(controls[1:]),
    )


def _control(name: ControlName, size: PrunedSize, true: PrunedSize, edges: int) -> Control:
    times, random = None, name == "random_nodes" and size.n_edges is None  # of one size: other sizes were not tried
    if name != "true" and not random and true.n_edges is not None:
        times = (edges if size.n_edges is None else size.n_edges) / max(1, true.n_edges)
    return Control(
        name=name,
        n_nodes=size.n_nodes,
        n_edges=size.n_edges,
        best_loss=size.best_loss,
        times_smaller=times,
        at_least=name != "true" and not random and size.n_edges is None,
        curve=tuple(size.curve),
    )
