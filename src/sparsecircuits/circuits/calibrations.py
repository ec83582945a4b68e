"""One bar for all: whatever runs (whole model, circuit, nothing, all but the circuit) is calibrated in the same way.

A scale and a shift per answer are fitted on training pairs and used on the prompts that are reported. So a circuit is
never compared, calibrated, with a model that is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound, Losses
from sparsecircuits.nodes.calibration import Calibration, fitted, training_pairs
from sparsecircuits.nodes.task_loss import accuracy, correct_of, in_order, task_loss
from sparsecircuits.tasks import PairBatch, Task

Run = Literal["circuit", "full", "empty", "ablated"]


@dataclass(frozen=True)
class Calibrations:
    """One calibration for each of what runs; the circuit's is its own, found on training pairs with it."""

    circuit: Calibration
    full: Calibration
    empty: Calibration
    ablated: Calibration

    @classmethod
    def of(cls, bound: Bound, task: Task) -> "Calibrations":
        """Fit those of whole model, nothing, and all but the circuit, under the circuit's ablation."""
        batch = training_pairs(task)
        full, empty, ablated = (fitted(bound.model, batch, gating) for gating in (None, bound.nothing, bound.rest))
        return cls(bound.circuit.calibration, full, empty, ablated)


def losses_of_runs(
    logits: Mapping[Run, Float[Tensor, "n 2"]], calibrations: Calibrations, batch: PairBatch, split: str, seed: int
) -> Losses:
    """Raw and calibrated losses of what ran on some prompts, and the shares of pairs in the right order.

    logits [n, 2]: of the answers, not calibrated, for each of the four.
    """
    correct = correct_of(batch, logits["full"].device)
    raw = {name: task_loss(x, correct).item() for name, x in logits.items()}
    fair = {name: getattr(calibrations, name)(x) for name, x in logits.items()}
    calibrated = {name: task_loss(x, correct).item() for name, x in fair.items()}
    order = {name: in_order(x, correct) for name, x in logits.items()}
    return Losses(
        split=split,
        n_pairs=len(batch.last) // 2,
        seed=seed,
        circuit=calibrated["circuit"],
        full=raw["full"],
        empty=raw["empty"],
        ablated=raw["ablated"],
        accuracy=accuracy(fair["circuit"], correct),
        accuracy_full=accuracy(logits["full"], correct),
        circuit_raw=raw["circuit"],
        full_calibrated=calibrated["full"],
        empty_calibrated=calibrated["empty"],
        ablated_calibrated=calibrated["ablated"],
        order=order["circuit"],
        order_full=order["full"],
        order_empty=order["empty"],
        order_ablated=order["ablated"],
    )
