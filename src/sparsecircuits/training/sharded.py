"""Weights whose rows are spread over processes (FSDP2): their exact top-k projection.

The k-th largest magnitude of a whole matrix is found digit by digit in its bit pattern, from histograms that
are summed over the processes: three rounds for all matrices together. No process ever sees the others' weights.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.projection import budget, targets
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at
from sparsecircuits.training.distributed import World, local

DIGITS = ((20, 11), (10, 10), (0, 10))  # (shift, width) of the 31 bits of |float32|, high to low
LAST_PLACE = (1 << 32) - 1


@dataclass(frozen=True)
class Shard:
    """This process's rows of a matrix, and what the whole matrix may keep (as in `project_topk_`)."""

    rows: Float[Tensor, "rows in"]
    first_row: int
    size: int
    """Entries of the whole matrix."""
    k: int
    floor: int = 0
    dim: int = 1


@torch.no_grad()
def project_shards_(shards: Sequence[Shard], world: World) -> None:
    """Zero all but k entries of each matrix in place: what `project_topk_` does to the whole matrix.

    Every process calls it with its own rows of the same matrices, in rank order: float32, contiguous.
    """
    for shard in shards:
        if shard.k == 0:
            shard.rows.zero_()
    active = [shard for shard in shards if 0 < shard.k < shard.size]
    if not active:
        return
    bits = [shard.rows.view(torch.int32) & 0x7FFFFFFF for shard in active]
    protected = [_protected(b, shard, world) for b, shard in zip(bits, active, strict=True)]
    rest = torch.tensor([shard.k for shard in active], device=bits[0].device)
    rest -= world.sum_(torch.stack([mask.sum() for mask in protected]))
    contenders = [b.masked_fill(mask, -1) for b, mask in zip(bits, protected, strict=True)]
    threshold, ties = _thresholds(contenders, rest, world)
    equal = torch.stack([(b == t).sum() for b, t in zip(contenders, threshold, strict=True)])
    # Ties go to the lower flat index, and so to the lower rank first.
    before = _stacked(equal, world)[: world.rank].sum(dim=0)
    mine = torch.minimum((ties - before).clamp_min(0), equal)
    for place, shard in enumerate(active):
        b, t = contenders[place], threshold[place]
        tied = b == t
        tied &= (tied.flatten().cumsum(0) <= mine[place]).view_as(tied)
        shard.rows.masked_fill_(~(protected[place] | (b > t) | tied), 0)


def _protected(bits: Int[Tensor, "rows in"], shard: Shard, world: World) -> Bool[Tensor, "rows in"]:
    """The `floor` largest entries of every row (dim 1) or of every column of the whole matrix (dim 0)."""
    if shard.floor == 0 or (shard.dim == 1 and bits.shape[0] == 0):
        return torch.zeros_like(bits, dtype=torch.bool)
    # Magnitude first, then the lower place: no two keys of a unit are equal.
    places = torch.arange(bits.shape[shard.dim], device=bits.device)
    places = places.unsqueeze(1) + shard.first_row if shard.dim == 0 else places
    keys = (bits.long() << 32) | (LAST_PLACE - places)
    if shard.dim == 1:
        return keys >= keys.topk(shard.floor, dim=1).values[:, -1:]
    best = keys.new_full((shard.floor, bits.shape[1]), -1)
    found = min(shard.floor, bits.shape[0])
    best[:found] = keys.topk(found, dim=0).values
    return keys >= _stacked(best, world).flatten(0, 1).topk(shard.floor, dim=0).values[-1:]


def _thresholds(
    bits: Sequence[Int[Tensor, "rows in"]], k: Int[Tensor, " m"], world: World
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Per matrix, of the magnitudes' bit patterns that are not negative: the k-th largest, and how many of its
    equals are among the k largest."""
    prefix, left = torch.zeros_like(k), k.clone()
    for shift, width in DIGITS:
        bins = 1 << width
        # What does not share the digits found so far is counted in a bin of its own.
        counts = torch.stack(
            [
                torch.bincount(
                    torch.where(b >> (shift + width) == p, (b >> shift) & (bins - 1), bins).flatten(),
                    minlength=bins + 1,
                )[:bins]
                for b, p in zip(bits, prefix, strict=True)
            ]
        )
        reached = world.sum_(counts).flip(1).cumsum(1)  # entries at or above a digit, from the largest digit on
        place = (reached < left.unsqueeze(1)).sum(dim=1, keepdim=True)
        above = torch.where(place > 0, reached.gather(1, (place - 1).clamp_min(0)), 0)
        left = left - above.squeeze(1)
        prefix = (prefix << width) | (bins - 1 - place.squeeze(1))
    return prefix, left


def _stacked(tensor: Tensor, world: World) -> Tensor:
    """[size, ...]: the tensors of all processes, by rank."""
    if world.size == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


class ShardedProjector:
    """Projects a sharded model's weights after each optimizer step, as `Projector` does for a whole one."""

    def __init__(self, model: SparseTransformer, config: SparsityConfig, world: World) -> None:
        parameters = dict(model.named_parameters())
        self.config, self.world = config, world
        self.targets = [] if config.dense else targets(model, config)
        self.weights = [parameters[target.name] for target in self.targets]
        rows = world.gather([local(weight).shape[0] for weight in self.weights])
        self.first_rows = [sum(counts[: world.rank]) for counts in zip(*rows, strict=True)]

    @torch.no_grad()
    def __call__(self, progress: float, held: Collection[str] = ()) -> None:
        """Zero all but the budget of this moment, per tensor, exactly. held: names of those to leave as they are."""
        shards = []
        for target, weight, first in zip(self.targets, self.weights, self.first_rows, strict=True):
            if target.name in held:
                continue
            k = budget(weight, density_at(progress, target.density, self.config))
            rows = local(weight)
            rows = rows if rows.dim() == 2 else rows.view(-1, 1)
            shards.append(Shard(rows, first, weight.numel(), k, target.floor, target.dim))
        project_shards_(shards, self.world)
