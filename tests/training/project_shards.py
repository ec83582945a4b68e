"""Run by train_together.py in several processes: sharded projections against the whole matrix's, bit by bit."""

import torch
import torch.distributed as dist

from sparsecircuits.kernels import topk_mask_reference
from sparsecircuits.training.sharded import Shard, project_shards_


def matrices(seed):
    """Matrices of a training step, with ties, zeros of both signs, and fewer rows than processes."""
    torch.manual_seed(seed)
    for place in range(12):
        rows, columns = (int(torch.randint(1, high, ())) for high in ((24, 40) if place % 3 else (4, 12)))
        weight = torch.randn(rows, columns) * 10.0 ** float(torch.randint(-30, 30, ()))
        if place % 2:
            weight = (torch.randn(rows, columns) * 2).round() / 4  # many equal magnitudes
        dim = int(torch.randint(0, 2, ()))
        floor = min(int(torch.randint(0, 5, ())), weight.shape[dim])
        need = floor * weight.shape[1 - dim]
        k = [need, weight.numel(), int(torch.randint(need, weight.numel() + 1, ()))][min(place, 2)]
        yield weight, k, floor, dim


def check(world):
    """Project shards of many matrices in all processes; the first one says how many agreed."""
    for seed in range(8):
        shards, expected = [], []
        for weight, k, floor, dim in matrices(seed):
            step = -(-weight.shape[0] // world.size)  # FSDP's cut: equal parts, the last ones short or empty
            mine = slice(min(world.rank * step, weight.shape[0]), min((world.rank + 1) * step, weight.shape[0]))
            expected.append(weight.masked_fill(~topk_mask_reference(weight, k, floor, dim), 0)[mine])
            shards.append(Shard(weight[mine].clone(), mine.start, weight.numel(), k, floor, dim))
        project_shards_(shards, world)
        for shard, wanted in zip(shards, expected, strict=True):
            assert torch.equal(shard.rows, wanted), (seed, shard)
    count = torch.ones(())
    dist.all_reduce(count)
    if world.is_first:
        print("agreed", int(count))
