"""A circuit of the sparse model carried over: its directions ablated in the dense model, beside random and principal
ones."""

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.directions import dense_site, direction, read_channel, residual_norms, stream_reads
from sparsecircuits.bridges.steering import REFERENCE_PAIRS
from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.models.hooks import intervene, record
from sparsecircuits.models.storage import content_hash
from sparsecircuits.nodes.task_loss import candidate_logits, correct_of, in_chunks, task_loss
from sparsecircuits.seeds import checked_seed
from sparsecircuits.tasks import PairBatch, Task

Bases = Mapping[str, Float[Tensor, "D r"]]
"""Orthonormal directions of the dense model's reads, by site."""


class CarriedOver(TypedDict):
    """Raw task losses of the dense model in nats, chance is ln 2: whole, and with as many directions of each of its
    reads held at their means."""

    dense_id: str
    sparse_id: str
    task: str
    directions: dict[str, int]
    """How many are held at each site."""
    whole: float
    circuit: float
    random: list[float]
    """One loss a draw."""
    principal: float
    """The directions of largest variance over the task's training prompts."""


@torch.no_grad()
def carry_over(
    bridge: Bridge, circuit: Circuit, task: Task, *, n_pairs: int = 64, draws: int = 4, seed: int = 0
) -> CarriedOver:
    """Hold the dense directions of a circuit's reads of the residual stream at their means over the task's training
    prompts, and see how much of the task goes; beside it as many random and as many principal directions.

    Raises UserError for a circuit of another model than the bridge's sparse one, or without such reads.
    """
    circuit.check_model(bridge.sparse)
    rng = np.random.default_rng(checked_seed(seed))
    reads = stream_reads(bridge.sparse, circuit.node_names, bridge.joined.sparse)
    if not reads:
        raise UserError(f"the circuit of {circuit.task} reads the residual stream nowhere: there is nothing to map")
    reference = task.encode(task.draw("train", REFERENCE_PAIRS, seed))
    real = torch.from_numpy(reference.real)
    ids = torch.from_numpy(reference.tokens).to(bridge.dense.device)
    norms = residual_norms(bridge, ids, real)
    own: dict[str, list[Tensor]] = {}
    for site, channel in (read_channel(bridge, node) for node in reads):
        own.setdefault(dense_site(bridge, site), []).append(direction(bridge, site, channel, norms))
    circuit_bases = {site: _orthonormal(torch.stack(found, dim=1)) for site, found in own.items()}
    width = bridge.dense.config.d_model
    with record(bridge.dense, own) as seen:
        bridge.dense(ids)
    reads_of = {site: seen[site][..., :width][real.to(ids.device)] for site in own}
    means = {site: x.mean(dim=0) for site, x in reads_of.items()}
    sizes = {site: basis.shape[1] for site, basis in circuit_bases.items()}
    batch = task.batch("held_out", n_pairs, seed)

    def loss(bases: Bases) -> float:
        return _loss_without(bridge, batch, bases, means)

    def random_bases() -> Bases:
        drawn = {site: torch.from_numpy(rng.standard_normal((width, size))) for site, size in sizes.items()}
        return {site: _orthonormal(x.to(means[site])) for site, x in drawn.items()}

    principal = {
        site: torch.linalg.svd(reads_of[site] - means[site], full_matrices=False).Vh[:size].T
        for site, size in sizes.items()
    }
    return {
        "dense_id": content_hash(bridge.dense),
        "sparse_id": circuit.model_id,
        "task": task.name,
        "directions": sizes,
        "whole": loss({}),
        "circuit": loss(circuit_bases),
        "random": [loss(random_bases()) for _ in range(draws)],
        "principal": loss(principal),
    }


def _orthonormal(found: Float[Tensor, "D n"]) -> Float[Tensor, "D r"]:
    """An orthonormal basis of what some columns span; those that others make up already add nothing."""
    left, values, _ = torch.linalg.svd(found, full_matrices=False)
    basis: Tensor = left[:, values > 1e-5 * values.max().clamp(min=1e-12)]
    return basis


def _loss_without(bridge: Bridge, batch: PairBatch, bases: Bases, means: Mapping[str, Tensor]) -> float:
    """The dense model's task loss with directions held at what they are in the means."""

    def hold(site: str) -> Callable[[Tensor], Tensor]:
        basis, mean = bases[site], means[site]

        def held(x: Tensor) -> Tensor:
            x = x.clone()
            stream = x[..., : len(mean)]
            stream -= (stream - mean) @ basis @ basis.T
            return x

        return held

    total, chunks = 0.0, in_chunks(batch)[1]
    with intervene(bridge.dense, {site: hold(site) for site in bases}):
        for chunk in chunks:
            logits = candidate_logits(bridge.dense, chunk)
            total += task_loss(logits, correct_of(chunk, logits.device)).item() * len(chunk.last)
    return total / len(batch.last)
