"""`prune`: from a model and a task to a circuit."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from sparsecircuits import __version__
from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.evaluation import measure
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discretise import Evaluator, drop_needless, smallest_prefix, top_nodes
from sparsecircuits.pruning.gates import NodeSpace, pretraining_means
from sparsecircuits.pruning.objective import all_candidate_logits, correct_of, task_loss
from sparsecircuits.pruning.optimise import learn_gates
from sparsecircuits.tasks import Task


def prune(
    model: SparseTransformer,
    task: Task,
    target_loss: float = 0.15,
    *,
    config: PruneConfig | None = None,
    tokens: np.ndarray | None = None,
    means: torch.Tensor | None = None,
    report: Callable[[float, str], None] | None = None,
) -> Circuit:
    """Find the smallest circuit that holds a task loss (Gao et al. 2025, section 2.2).

    Gates are learned on the task's training split; the size is chosen so that both the training and the
    validation split hold the target with a margin; the circuit's `losses` are those of the held-out split.
    Nodes outside are frozen at their mean over pretraining text: `means` [nodes], or computed from `tokens`
    (1-d ids), or from the corpus that the model was trained on. report(share done, what is going on) many
    times.

    Raises TaskTooHard when the whole model misses the target, UserError for a target out of range.
    """
    began, config = time.perf_counter(), config or PruneConfig()
    if not 0 < target_loss < 0.6931:
        raise UserError(f"target_loss must lie between 0 and ln 2 (chance), got {target_loss}")
    splits = [task.batch(split, config.eval_pairs, config.seed) for split in ("train", "validation")]
    batch, goal = splits[1], config.margin * target_loss
    full = task_loss(all_candidate_logits(model, batch), correct_of(batch, model.device)).item()
    if full > target_loss:
        raise TaskTooHard(f"the whole model's loss on {task.name} is {full:.3f}, above the target {target_loss}")
    if means is None:
        means = pretraining_means(model, _training_tokens(model) if tokens is None else tokens)
    tell = report or (lambda share, details: None)
    evaluate = Evaluator(model, means, *splits)
    tau = learn_gates(model, task, means, config, lambda *state: tell(*_learning(config, *state)))
    tell(0.8, "choosing the size")
    size = smallest_prefix(tau, evaluate, goal) or smallest_prefix(tau, evaluate, target_loss)
    if size is None:
        raise TaskTooHard(f"no set of nodes holds a loss of {target_loss} on {task.name}")
    kept = drop_needless(
        top_nodes(tau, size),
        evaluate,
        max(goal, evaluate(top_nodes(tau, size)).loss),
        report=lambda n: tell(0.9, f"dropping the needless of {n} nodes"),
    )
    found_by = {
        "method": "learned gates, bisection, leave-one-out",
        "version": __version__,
        "config": dataclasses.asdict(config),
        "ranked_size": size,
        "evaluations": evaluate.calls,
        "seconds": round(time.perf_counter() - began, 2),
    }
    circuit = _build(model, task, target_loss, kept, evaluate, found_by)
    tell(1.0, f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges")
    return circuit


def _learning(config: PruneConfig, step: int, loss: float, active: int) -> tuple[float, str]:
    """Progress while gates are learned: the first 80% of pruning."""
    return 0.8 * step / config.steps, f"step {step} · loss {loss:.3f} · {active} nodes"


def _training_tokens(model: SparseTransformer) -> np.ndarray:
    from sparsecircuits.data import Tokenizer, prepare_tokens

    if model.corpus is None:
        raise UserError("the model does not say what text it was trained on: give prune its tokens or means")
    return prepare_tokens(model.corpus, model.tokenizer or Tokenizer.default()).sample()


def _build(
    model: SparseTransformer,
    task: Task,
    target_loss: float,
    kept: torch.Tensor,
    evaluate: Evaluator,
    found_by: dict,
) -> Circuit:
    """The circuit of a kept set, with each node's importance and the held-out losses."""
    space, score = NodeSpace.of(model.config), evaluate(kept)
    names = space.names(kept)
    importance = {}
    for name in names if len(names) <= 200 else []:
        without = kept & ~space.mask([name])
        importance[name] = evaluate(without).loss - score.loss
    nodes = [
        node.model_copy(update={"importance": importance.get(node.name)})
        for node in nodes_of(names, model.config, space.split(evaluate.frozen))
    ]
    circuit = Circuit(
        task=task.name,
        answers=task.answers,
        model_name=model.name,
        model_id=content_hash(model),
        target_loss=target_loss,
        nodes=tuple(nodes),
        edges=tuple(edges_of(names, model)),
        scale=score.calibration.scale,
        shift=score.calibration.shift,
        frozen=encode_frozen(space, evaluate.frozen),
        found_by=found_by,
    )
    return circuit.model_copy(update={"losses": measure(model, circuit, task)})
