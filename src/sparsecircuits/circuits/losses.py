"""A circuit's losses, recomputed from model and circuit alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.circuits.calibrations import Calibrations, Run, losses_of_runs
from sparsecircuits.circuits.circuit import Circuit, Losses
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import all_candidate_logits
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
    """Losses of the circuit alone, the whole model, nothing, and all but the circuit, on one split: raw, and each with
    its calibration from training pairs.

    Deterministic: the same arguments give the same numbers in any process. Raises UserError when the
    circuit belongs to another model. A task file with fewer pairs gives all it has.
    """
    circuit.check_model(model)
    batch, space = task.batch(split, n_pairs, seed), NodeSpace.of(model.config)
    logits: dict[Run, Tensor] = {
        "circuit": circuit_logits(model, circuit, batch, calibrated=False),
        "full": all_candidate_logits(model, batch),
        "empty": frozen_logits(model, circuit, batch, torch.ones(space.size)),
        "ablated": frozen_logits(model, circuit, batch, circuit.kept(space)),
    }
    return losses_of_runs(logits, Calibrations.of(model, circuit, task), batch, split, seed)
