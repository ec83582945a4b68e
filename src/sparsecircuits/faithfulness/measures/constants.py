"""Ablation values: are the constants that stand for the nodes outside plausible?"""

import torch
from pydantic import BaseModel, ConfigDict

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.nodes.recording import recordings
from sparsecircuits.tasks import PairBatch

FAR = 4.0
"""Root-mean-squares of a site beyond the observed range at which a value is no longer plausible."""


class Constants(BaseModel):
    """How far ablation values lie outside the range that their nodes have on the task's prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    far: tuple[str, ...]
    """Nodes whose value lies more than four root-mean-squares of their site outside their range."""
    farthest: float
    """The largest such distance, in root-mean-squares of the site; 0 when all lie inside."""
    misrecorded: tuple[str, ...]
    """Kept nodes whose recorded mean is not what they are ablated at (mean ablation alone)."""


def constants(bound: Bound, batch: PairBatch) -> Constants:
    """Compare the ablation values with what the nodes do in the whole model. A value that no prompt comes near is
    stale or wrong, and every measure under that ablation is then about another network."""
    circuit, space, frozen = bound.circuit, bound.space, bound.frozen
    low, high = torch.full((space.size,), torch.inf), torch.full((space.size,), -torch.inf)
    square, count = torch.zeros(space.size), 0
    for chunk, seen in recordings(bound.model, batch, space.slices):
        real = torch.from_numpy(chunk.real)
        values = torch.cat([seen[site].float().cpu()[real] for site in space.slices], dim=-1)
        low, high = torch.minimum(low, values.amin(dim=0)), torch.maximum(high, values.amax(dim=0))
        square, count = square + values.square().sum(dim=0), count + len(values)
    scale = torch.cat([(part.mean() / count).sqrt().expand(len(part)) for part in space.split(square).values()])
    distance = torch.maximum(low - frozen, frozen - high).clamp(min=0) / scale.clamp(min=1e-6)
    if circuit.ablation == "resample":
        distance = torch.zeros_like(distance)
    names = dict(zip(space.names(bound.kept), frozen[bound.kept].tolist(), strict=True))
    wrong = [
        node.name
        for node in circuit.nodes
        if circuit.ablation == "mean"
        and node.mean is not None
        and abs(node.mean - names[node.name]) > 1e-4 * (1 + abs(node.mean))
    ]
    return Constants(far=tuple(space.names(distance > FAR)), farthest=distance.max().item(), misrecorded=tuple(wrong))
