"""`prune`: from a model and a task to a circuit."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sparsecircuits import __version__
from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edge_records, nodes_of
from sparsecircuits.circuits.losses import measure
from sparsecircuits.circuits.schema import FoundBy, Hardening
from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import ablation_values, training_means
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of, task_loss
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import Estimates, drop_needless, smallest_prefix, top_nodes
from sparsecircuits.pruning.edge_pruning import prune_edges
from sparsecircuits.pruning.hardening import Found, harden
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.pruning.size_curve import size_curve
from sparsecircuits.tasks import Task

WIDER = 1.25  # of the smallest prefix that holds the goal: where the clean-up starts a second time
PUT_BACK = 0.5  # share of the dropped nodes that a further clean-up starts with


def prune(
    model: SparseTransformer,
    task: Task,
    target_loss: float = 0.15,
    *,
    config: PruneConfig | None = None,
    tokens: np.ndarray | None = None,
    means: torch.Tensor | None = None,
    forbidden: Sequence[str] = (),
    report: Callable[[float, str], None] | None = None,
) -> Circuit:
    """Find the smallest circuit that holds a task loss (Gao et al. 2025, section 2.2).

    Gates are learned on the task's training split; the size is chosen so that both the training and the
    validation split hold the target with a margin; the circuit's `losses` are those of the held-out split.
    Nodes outside carry their ablation value (`config.ablation`); their means over pretraining text are
    `means` [nodes], or computed from `tokens` (1-d ids), or from the corpus that the model was trained on.
    Then edges are removed too, as far as the target allows (`config.prune_edges`). With stochastic or adversarial
    ablation the circuit is then challenged by mixtures of itself and the model (`pruning.hardening`); what came of it
    is in `found_by.hardening`. forbidden: names of
    nodes that must stay outside (see `backups`). report(share done, what is going on) many times.

    Raises TaskTooHard when the whole model misses the target, or no set of nodes that are not forbidden holds it;
    UserError for a target out of range, or a forbidden node that the model lacks.
    """
    began, config = time.perf_counter(), config or PruneConfig()
    require_doable(model, task, target_loss, config)
    if means is None:
        means = training_means(model, tokens)
    tell = report or (lambda share, details: None)
    outside = NodeSpace.of(model.config).mask(list(forbidden)) if forbidden else None
    search = NodeSearch.of(model, task, ablation_values(config.carried, means), target_loss, config, outside)
    evaluate, goal = search.evaluate, search.goal
    nothing = torch.zeros(evaluate.space.size, dtype=torch.bool)
    if evaluate(nothing).loss <= goal:  # the last token says it all, by way of the bigram table
        tau, size, kept = torch.zeros(evaluate.space.size), 0, nothing
    else:
        learning: Callable = lambda *state: tell(*_learning(config, *state))  # noqa: E731
        tau = search.ranking(learning)
        tell(0.8, "choosing the size")
        beside = f" without the {len(forbidden)} forbidden nodes" if forbidden else ""
        size, goal = _smallest(tau, evaluate, goal, target_loss, task.name + beside)
        kept = _cleaned(tau, size, evaluate, goal, config, lambda n: tell(0.85, f"dropping the needless of {n} nodes"))
    before = len(evaluate.edges_between(kept))
    found = _with_edges(task, kept, evaluate, goal, config, lambda details: tell(0.92, details))
    found_by = FoundBy(
        method=f"{config.method} ranking, bisection, leave-one-out with restarts",
        version=__version__,
        config=dataclasses.asdict(config),
        ranked_size=size,
        edges_before_edge_pruning=before,
    )
    if config.carried != config.ablation:
        found, hardening = _hardened(found, search, goal, lambda details: tell(0.96, details))
        found_by = found_by.model_copy(update={"hardening": hardening})
    if forbidden:
        found_by = found_by.model_copy(update={"forbidden": tuple(forbidden)})
    circuit = _build(model, task, target_loss, found, means, tau, evaluate, found_by, began)
    tell(1.0, f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges")
    return circuit


def _smallest(tau: torch.Tensor, evaluate: Evaluator, goal: float, target_loss: float, task: str) -> tuple[int, float]:
    """The smallest prefix of a ranking that holds the goal, or else the target itself; and the loss to hold."""
    size = smallest_prefix(tau, evaluate, goal) or smallest_prefix(tau, evaluate, target_loss)
    if size is None:
        raise TaskTooHard(f"no set of nodes holds a loss of {target_loss} on {task}")
    return size, max(goal, evaluate(top_nodes(tau, size)).loss)


def _cleaned(
    tau: torch.Tensor, size: int, evaluate: Evaluator, goal: float, config: PruneConfig, report: Callable[[int], None]
) -> torch.Tensor:
    """The smallest outcome (edges, then nodes) of several clean-ups.

    Leave-one-out ends where it first gets stuck. So it starts from the smallest prefix that holds the goal and from a
    somewhat larger one; and then again from the best set so far with some of what was dropped put back.
    """

    def drop(start: torch.Tensor) -> torch.Tensor:
        estimates = Estimates(evaluate.glance, evaluate.node_rises)
        return drop_needless(start, evaluate, goal, report=report, estimates=estimates)

    def cost(kept: torch.Tensor) -> tuple[int, int]:
        return len(evaluate.edges_between(kept)), int(kept.sum())

    pool = top_nodes(tau, min(tau.numel(), math.ceil(WIDER * size)))
    best = min((drop(start) for start in (top_nodes(tau, size), pool)), key=cost)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.restarts):
        back = pool & (torch.rand(len(pool), generator=generator) < PUT_BACK)
        best = min(best, drop(best | back), key=cost)
    return best


def _with_edges(
    task: Task, kept: torch.Tensor, evaluate: Evaluator, goal: float, config: PruneConfig, tell: Callable[[str], None]
) -> Found:
    """A set of nodes and the edges between them, as far as they are needed."""
    if not config.prune_edges:
        return Found(kept, evaluate.edges_between(kept))
    return Found(*prune_edges(task, kept, evaluate, goal, config, tell))


def _hardened(found: Found, search: NodeSearch, goal: float, tell: Callable[[str], None]) -> tuple[Found, Hardening]:
    """A circuit that holds under mixtures too, as far as one was found."""
    config, task, target = search.config, search.task, search.target_loss

    def again(tau: torch.Tensor, evaluate: Evaluator) -> Found:
        size, held = _smallest(tau, evaluate, goal, target, f"{task.name} under {len(evaluate.challenges)} challenges")
        kept = _cleaned(tau, size, evaluate, held, config, lambda n: tell(f"dropping the needless of {n} nodes"))
        return _with_edges(task, kept, evaluate, held, config, tell)

    return harden(found, search, again, goal, tell)


def _learning(config: PruneConfig, step: int, loss: float, active: int) -> tuple[float, str]:
    """Progress while gates are learned: the first 80% of pruning."""
    return 0.8 * step / config.steps, f"step {step} · loss {loss:.3f} · {active} nodes"


def require_doable(model: SparseTransformer, task: Task, target_loss: float, config: PruneConfig) -> None:
    """Raise TaskTooHard when the whole model, calibrated on training prompts as a circuit is, misses the target on
    validation prompts; UserError for a target out of range."""
    if not 0 < target_loss < 0.6931:
        raise UserError(f"target_loss must lie between 0 and ln 2 (chance), got {target_loss}")
    batch = task.batch("validation", config.eval_pairs, config.seed)
    logits, correct = all_candidate_logits(model, batch), correct_of(batch, model.device)
    calibrated = task_loss(fitted(model, training_pairs(task))(logits), correct).item()
    if calibrated > target_loss:
        raise TaskTooHard(
            f"the whole model's loss on {task.name} is {calibrated:.3f} calibrated "
            f"({task_loss(logits, correct).item():.3f} raw), above the target {target_loss}"
        )


def _build(
    model: SparseTransformer,
    task: Task,
    target_loss: float,
    found: Found,
    means: torch.Tensor,
    tau: torch.Tensor,
    evaluate: Evaluator,
    found_by: FoundBy,
    began: float,
) -> Circuit:
    """The circuit of a kept set, with each node's importance, the loss-size curve and the held-out losses."""
    space, kept, removed = NodeSpace.of(model.config), found.kept, found.removed(evaluate)
    score, names, ids = evaluate(kept, removed), space.names(kept), kept.nonzero().flatten().tolist()
    importance = {}
    for node in ids if len(ids) <= 200 else []:
        without = kept.clone()
        without[node] = False
        importance[node] = evaluate(without, removed).loss - score.loss
    nodes = [
        node.model_copy(update={"importance": importance.get(place)})
        for place, node in zip(ids, nodes_of(names, model.config, space.split(means)), strict=True)
    ]
    curve = tuple(size_curve(evaluate, tau, kept, found.edges, removed, importance))
    measured = {
        "validation_loss": score.loss,
        "curve": curve,
        "evaluations": evaluate.calls,
        "glances": evaluate.glances,
        "seconds": round(time.perf_counter() - began, 2),
    }
    circuit = Circuit(
        task=task.name,
        answers=task.answers,
        model_name=model.name,
        model_id=content_hash(model),
        ablation=evaluate.ablation,
        loss=task.loss,
        target_loss=target_loss,
        nodes=tuple(nodes),
        edges=tuple(edge_records(found.edges, space)),
        scale=score.calibration.scale,
        shift=score.calibration.shift,
        frozen=encode_frozen(space, evaluate.frozen),
        found_by=found_by.model_copy(update=measured),
    )
    return circuit.model_copy(update={"losses": measure(model, circuit, task)})
