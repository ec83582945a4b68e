"""Sufficiency: how much of the task the circuit does alone, under four ablations of everything else."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import ablated_as, final_logits, losses_of, mean_of_draws
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration, calibrate
from sparsecircuits.nodes.donors import Matched
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import correct_of, pick_answers, task_loss
from sparsecircuits.tasks import PairBatch

AblationName = Literal["mean", "zero", "resample_pair", "resample_random"]


class Sufficiency(BaseModel):
    """One ablation's losses of the circuit alone, in nats; chance is ln 2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ablation: AblationName
    draws: int
    """Draws of donors that the losses are means over."""
    loss: Estimate
    """With the circuit's own calibration."""
    loss_recalibrated: float
    """With the scale and shift that suit this ablation best (on these very prompts)."""
    loss_empty: float
    """Every node ablated in this way, the circuit's own too; with the calibration of nothing."""
    accuracy: Estimate
    sufficiency: Estimate
    """(empty - circuit) / (empty - full): 1 when the circuit does as well as the model, 0 when as badly as
    nothing, negative when worse; above 1 when calibration makes it better."""


def share(empty: np.ndarray, circuit: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(empty - circuit) / (empty - full); NaN where the model is no better than nothing."""
    span = empty - full
    return np.where(span > 0, (empty - circuit) / np.where(span > 0, span, 1), np.nan)


def ablations_of(circuit: CircuitData) -> list[AblationName]:
    """The ablations that a circuit can be tried under: its means are known if it was found with them."""
    return [*(("mean",) if circuit.ablation == "mean" else ()), "zero", "resample_pair", "resample_random"]


def gated_answers(
    model: SparseTransformer, gating: Gating, batch: PairBatch, ablation: AblationName, seed: int
) -> Float[Tensor, "n 2"]:
    """Logits of the answers under a gating with another ablation, not calibrated."""
    if ablation == "resample_random":
        donors = Matched.of(batch).draw(seed)
        return pick_answers(final_logits(model, batch, gating, donors=donors), batch)
    kind = "resample" if ablation == "resample_pair" else ablation
    return pick_answers(final_logits(model, batch, ablated_as(gating, kind)), batch)


def sufficiency_under(
    bound: Bound,
    batch: PairBatch,
    full: Float[Tensor, "n 2"],
    nothing_fair: Calibration,
    ablation: AblationName,
    *,
    draws: int = 1,
    seed: int = 0,
) -> Sufficiency:
    """Run the circuit with everything else ablated in one of four ways (Gao et al. 2025; Wang et al. 2022).

    mean: over pretraining text. zero. resample_pair: what each node is on the pair's other prompt, so that all
    that speaks for the answer outside the circuit speaks for the wrong one. resample_random: what it is on
    another random prompt of the task, of either class, position by position (Chan et al. 2022); `draws` times.
    Zero ablation alone flatters: a constant that the circuit needs may not show.

    full [n, 2]: the whole model's logits, calibrated; nothing_fair: the calibration of nothing.
    Losses >= 0, sufficiency <= about 1.
    """
    model = bound.model
    draws = draws if ablation == "resample_random" else 1
    raw, losses, right, empty = [], [], [], []
    for draw in range(draws):
        raw.append(gated_answers(model, bound.alone, batch, ablation, seed + draw))
        calibrated = bound.circuit.calibration(raw[-1])
        losses.append(losses_of(calibrated, batch))
        right.append((calibrated.argmax(dim=-1) == correct_of(batch)).float())
        left = nothing_fair(gated_answers(model, bound.nothing, batch, ablation, seed + draw))
        empty.append(losses_of(left, batch))
    correct = correct_of(batch).repeat(draws)
    best = calibrate(torch.cat(raw), correct)
    return Sufficiency(
        ablation=ablation,
        draws=draws,
        loss=estimate(mean_of_draws(losses), seed=seed),
        loss_recalibrated=task_loss(best(torch.cat(raw)), correct).item(),
        loss_empty=mean_of_draws(empty).mean().item(),
        accuracy=estimate(mean_of_draws(right), seed=seed),
        sufficiency=estimate(mean_of_draws(empty), mean_of_draws(losses), losses_of(full, batch), of=share, seed=seed),
    )
