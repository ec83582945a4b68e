"""Claims about how large circuits are: by ranking, by target loss, by what a node is."""

import itertools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.claims.claim import Setting
from sparsecircuits.claims.judging import geometric_mean, number, ratios, unsaid, verdict, where
from sparsecircuits.claims.schema import Row, Rows, Verdict
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.models.names import split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.nodes.evaluator import Evaluator, Score
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.pruning.config import Method, PruneConfig
from sparsecircuits.pruning.discovery import prune
from sparsecircuits.pruning.discretise import smallest_prefix, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.pruning.size_curve import edges_at
from sparsecircuits.tasks import get_task

TARGET = 0.15
RANKED_TASKS = ("class_init", "enumerate_range", "lambda_func", "while_return_true")
RANKINGS: tuple[Method, ...] = ("learned", "gradient", "integrated-gradients", "eap-ig")
SWEPT_TASKS = ("class_init", "enumerate_range", "while_return_true")
TARGETS = (0.5, 0.15, 0.05, 0.015)
"""The paper's."""


def pruning(setting: Setting, method: Method = "learned") -> PruneConfig:
    """Pruning at a scale: fewer pairs to rank and to judge sets by below 1. Gates always have their steps and pairs,
    since with fewer they would lose to rankings that need none."""
    plain = PruneConfig()
    pairs = setting.scaled(plain.pairs, plain.pairs if method == "learned" else 8)
    steps, judged = setting.scaled(plain.steps, plain.steps), setting.scaled(plain.eval_pairs, 16)
    return PruneConfig(method=method, steps=steps, pairs=pairs, eval_pairs=judged, seed=setting.seed)


def _searches(setting: Setting, method: Method) -> Iterator[tuple[str, SparseTransformer, NodeSearch]]:
    """A search per model and task; tasks that a model cannot do at the target, on training and validation prompts, are
    left out."""
    for subject in setting.subjects:
        model = subject.model
        means = training_means(model)
        for name in RANKED_TASKS:
            setting.tell(f"{subject.name}, {name}, {method}")
            search = NodeSearch.of(model, get_task(name, model.tokenizer), means, TARGET, pruning(setting, method))
            if search.evaluate(torch.ones(search.evaluate.space.size, dtype=torch.bool)).loss <= search.goal:
                yield subject.name, model, search


def learned_attribution(setting: Setting) -> list[Row]:
    """The smallest prefix of each ranking that holds the loss, as it is, without a clean-up: its nodes and the nonzero
    weights between them."""
    rows: dict[tuple[str, str], Row] = {}
    for method in RANKINGS:
        for name, _, search in _searches(setting, method):
            row = rows.setdefault((name, search.task.name), {"model": name, "task": search.task.name})
            nodes, edges = _prefix(search)
            row |= {f"{method}, nodes": nodes, f"{method}, edges": edges}
    return list(rows.values())


def _prefix(search: NodeSearch) -> tuple[int | None, int | None]:
    tau = search.ranking()
    size = smallest_prefix(tau, search.evaluate, search.goal)
    return size, None if size is None else len(search.evaluate.edges_between(top_nodes(tau, size)))


def judge_learned_attribution(rows: Rows) -> Verdict:
    """By the geometric mean of edges: attribution's (the paper's baseline is the gradient) over learned gates'."""
    found = ratios(rows, "gradient, edges", "learned, edges")
    if len(found) < 3:
        return unsaid(f"{len(found)} tasks have both circuits")
    means = {method: geometric_mean(ratios(rows, f"{method}, edges", "learned, edges")) for method in RANKINGS[1:]}
    words = ", ".join(f"{method} {mean:.1f}" for method, mean in means.items())
    mean = means["gradient"]
    return verdict(mean >= 10, mean >= 2, f"edges over those of learned gates, {len(found)} tasks: {words}")


def target_losses(setting: Setting) -> list[Row]:
    """Circuits pruned for each of the paper's targets."""
    rows: list[Row] = []
    for subject in setting.subjects:
        model, means = subject.model, training_means(subject.model)
        for name in SWEPT_TASKS:
            for target in TARGETS:
                setting.tell(f"{subject.name}, {name} at {target}")
                row: Row = {"model": subject.name, "task": name, "target": target}
                try:
                    circuit = prune(
                        model, get_task(name, model.tokenizer), target, config=pruning(setting), means=means
                    )
                except TaskTooHard:
                    rows.append(row | {"nodes": None, "edges": None, "loss": None})
                    continue
                held = circuit.losses.circuit if circuit.losses is not None else None
                rows.append(row | {"nodes": len(circuit.nodes), "edges": len(circuit.edges), "loss": held})
    return rows


def judge_target_losses(rows: Rows) -> Verdict:
    """By the geometric mean of edges over the tasks that have a circuit at all four targets."""
    tasks = {(row["model"], row["task"]) for row in rows}
    whole = [
        sizes
        for model, task in sorted(tasks, key=str)
        if None not in (sizes := [_edges(rows, model, task, target) for target in TARGETS])
    ]
    if len(whole) < 2:
        return unsaid(f"{len(whole)} tasks have a circuit at all of {TARGETS}")
    # One more than the edges: a loose target may need none.
    means = [geometric_mean(1 + (sizes[place] or 0) for sizes in whole) - 1 for place in range(len(TARGETS))]
    grows, growth = all(a < b for a, b in itertools.pairwise(means)), means[-1] / max(means[0], 1e-9)
    words = " / ".join(f"{mean:.1f}" for mean in means)
    return verdict(
        grows and 2 <= growth <= 12,
        grows,
        f"{words} edges at {' / '.join(map(str, TARGETS))}, {len(whole)} tasks: {growth:.1f} times as many at the end",
    )


def _edges(rows: Rows, model: object, task: object, target: float) -> float | None:
    found = where(rows, model=model, task=task, target=target)
    return number(found[0], "edges") if found else None


def size_curves(setting: Setting) -> list[Row]:
    """The fewest edges at each of the paper's targets, on the curves that circuits beside a model were found with."""
    rows: list[Row] = []
    for subject in setting.subjects:
        for bound in subject.circuits():
            curve = bound.circuit.found_by.curve or ()
            rows += [
                {
                    "model": subject.name,
                    "task": bound.circuit.task,
                    "target": target,
                    "edges": edges_at(list(curve), target),
                }
                for target in TARGETS
            ]
    return rows


def coarse_units(setting: Setting) -> list[Row]:
    """The fewest attention heads and MLPs, ranked by edge attribution, that hold the loss, and the nonzero weights that
    are in them; beside the circuits that lie beside the model, and the nonzero weights between their nodes."""
    ours = {(s.name, bound.circuit.task): bound for s in setting.subjects for bound in s.circuits()}
    rows: list[Row] = []
    for name, model, search in _searches(setting, "eap-ig"):
        bound = ours.get((name, search.task.name))
        if bound is None:
            continue
        units, size, edges = _fewest_units(model, search)
        rows.append(
            {
                "model": name,
                "task": search.task.name,
                "units": size,
                "of units": units,
                "edges in units": edges,
                "our nodes": len(bound.circuit.nodes),
                "our edges": _size(search.evaluate, bound.kept),
            }
        )
    return rows


def _fewest_units(model: SparseTransformer, search: NodeSearch) -> tuple[int, int | None, int | None]:
    """How many units there are, the smallest prefix of them, and the edges in it."""
    evaluate = search.evaluate
    owner = unit_of_node(model)
    scores = unit_scores(search.ranking(), owner)

    def score(units: Bool[Tensor, " units"]) -> Score:
        return evaluate(nodes_of_units(units, owner))

    size = smallest_prefix(scores, score, search.goal)
    if size is None:
        return len(scores), None, None
    return len(scores), size, _size(evaluate, nodes_of_units(top_nodes(scores, size), owner))


def _size(evaluate: Evaluator, kept: Bool[Tensor, " nodes"]) -> int:
    return len(evaluate.edges_between(kept))


def unit_of_node(model: SparseTransformer) -> Tensor:
    """The coarse unit of each node [nodes]: its attention head or its MLP; -1 for reads and writes of the residual
    stream, which a graph of heads and MLPs always keeps."""
    space, config = NodeSpace.of(model.config), model.config
    owner = torch.full((space.size,), -1)
    heads = config.attn_width // config.d_head
    for site, place in space.slices.items():
        layer, kind = split_site(site)
        if layer is not None and kind in ("attn.q", "attn.k", "attn.v"):
            owner[place] = layer * (heads + 1) + torch.arange(config.attn_width) // config.d_head
        elif layer is not None and kind == "mlp.post_act":
            owner[place] = layer * (heads + 1) + heads
    return owner


def unit_scores(scores: Float[Tensor, " nodes"], owner: Tensor) -> Float[Tensor, " units"]:
    """The sum of what its nodes score; nothing that a ranking has shifted counts below 0."""
    within = owner >= 0
    above = scores[within] - scores.min()
    return torch.zeros(int(owner.max()) + 1).index_add_(0, owner[within], above.float())


def nodes_of_units(units: Bool[Tensor, " units"], owner: Tensor) -> Bool[Tensor, " nodes"]:
    """The nodes of the units that are on, and all reads and writes."""
    return torch.where(owner >= 0, units[owner.clamp(min=0)], torch.ones_like(owner, dtype=torch.bool))


def judge_coarse_units(rows: Rows) -> Verdict:
    """By the geometric mean of edges: those within the units over those between our nodes."""
    found = ratios(rows, "edges in units", "our edges")
    if len(found) < 3:
        return unsaid(f"{len(found)} tasks have both circuits")
    mean = geometric_mean(found)
    shares = ratios(rows, "units", "of units")
    return verdict(
        mean >= 10,
        mean >= 2,
        f"{mean:.0f} times as many weights in the units as between our nodes ({len(found)} tasks); "
        f"{100 * math.fsum(shares) / len(shares):.0f}% of the heads and MLPs are needed",
    )
