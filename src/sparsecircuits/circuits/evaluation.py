"""A circuit's losses, recomputed from model and circuit alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.circuits.circuit import Circuit, Losses
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.gates import NodeSpace
from sparsecircuits.pruning.objective import accuracy, all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import PairBatch, Task

REPORT_SPLIT, REPORT_PAIRS, REPORT_SEED = "held_out", 256, 0


def circuit_logits(
    model: SparseTransformer, circuit: Circuit, batch: PairBatch, *, calibrated: bool = True
) -> Float[Tensor, "n 2"]:
    """Candidate logits of the circuit alone: every node and edge outside is ablated."""
    logits = all_candidate_logits(model, batch, circuit.gating(model))
    return circuit.calibration(logits) if calibrated else logits


def frozen_logits(model: SparseTransformer, circuit: Circuit, batch: PairBatch, off: Tensor) -> Float[Tensor, "n 2"]:
    """Candidate logits of the whole model with only the nodes in the mask `off` ablated, not calibrated."""
    return all_candidate_logits(model, batch, circuit.without(model, off))


def measure(
    model: SparseTransformer,
    circuit: Circuit,
    task: Task,
    split: str = REPORT_SPLIT,
    n_pairs: int = REPORT_PAIRS,
    seed: int = REPORT_SEED,
) -> Losses:
    """Losses of the circuit alone, the whole model, nothing, and all but the circuit, on one split.

    Deterministic: the same arguments give the same numbers in any process. Raises UserError when the
    circuit belongs to another model. A task file with fewer pairs gives all it has.
    """
    circuit.check_model(model)
    batch = task.batch(split, n_pairs, seed)
    correct = correct_of(batch, model.device)
    space = NodeSpace.of(model.config)
    full, alone = all_candidate_logits(model, batch), circuit_logits(model, circuit, batch)
    empty = frozen_logits(model, circuit, batch, torch.ones(space.size))
    ablated = frozen_logits(model, circuit, batch, circuit.kept(space))
    return Losses(
        split=split,
        n_pairs=len(batch.last) // 2,
        seed=seed,
        circuit=task_loss(alone, correct).item(),
        full=task_loss(full, correct).item(),
        empty=task_loss(empty, correct).item(),
        ablated=task_loss(ablated, correct).item(),
        accuracy=accuracy(alone, correct),
        accuracy_full=accuracy(full, correct),
    )
