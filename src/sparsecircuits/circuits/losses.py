"""A circuit's losses, recomputed from model and circuit alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.circuits.calibrations import Calibrations, Run, losses_of_runs
from sparsecircuits.circuits.circuit import Circuit, Losses
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.tasks import PairBatch, Task

REPORT_SPLIT, REPORT_PAIRS, REPORT_SEED = "held_out", 256, 0


def circuit_logits(model: SparseTransformer, circuit: Circuit, batch: PairBatch) -> Float[Tensor, "n 2"]:
    """Candidate logits of the circuit alone, calibrated: every node and edge outside is ablated."""
    bound = circuit.on(model)
    return circuit.calibration(bound.evaluator(batch).logits(bound.kept, bound.removed)[0])


def measure(
    model: SparseTransformer,
    circuit: Circuit,
    task: Task,
    split: str = REPORT_SPLIT,
    n_pairs: int = REPORT_PAIRS,
    seed: int = REPORT_SEED,
) -> Losses:
    """Losses of the circuit alone, the whole model, nothing, and all but the circuit, on one split: raw, and each with
    its calibration from training pairs.

    Deterministic: the same arguments give the same numbers in any process. Raises UserError when the
    circuit belongs to another model. A task file with fewer pairs gives all it has.
    """
    circuit.check_model(model)
    circuit.check_task(task)
    batch, bound = task.batch(split, n_pairs, seed), circuit.on(model)
    run, nothing = bound.evaluator(batch), torch.zeros_like(bound.kept)
    logits: dict[Run, Tensor] = {
        "circuit": run.logits(bound.kept, bound.removed)[0],
        "full": all_candidate_logits(model, batch).cpu(),
        "empty": run.logits(nothing)[0],
        "ablated": run.logits(~bound.kept)[0],
    }
    return losses_of_runs(logits, Calibrations.of(bound, task), batch, split, seed)
