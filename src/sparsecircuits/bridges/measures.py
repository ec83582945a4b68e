"""How well a bridge joins its models: errors of the maps, and hybrid passes by their loss and divergence."""

import random
from typing import TypedDict

import numpy as np
import torch
import torch.nn.functional as F

from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.losses import kl_divergence
from sparsecircuits.data import validation_batches
from sparsecircuits.models.storage import content_hash
from sparsecircuits.seeds import checked_seed

ROWS = 8  # sequences a batch


class BoundaryRow(TypedDict):
    """A place: the boundary of the dense model and that of the sparse one, the maps' normalised errors (`losses.nmse`,
    over all tokens), and the single switches there: the hybrid's loss and its divergence from the dense model,
    KL(dense ‖ hybrid), both in nats a token."""

    boundary: int
    sparse_boundary: int
    nmse_encoder: float
    nmse_decoder: float
    loss_to_sparse: float
    kl_to_sparse: float
    loss_to_dense: float
    kl_to_dense: float


class HybridRow(TypedDict):
    """A pattern of switches, its loss and its divergence from the dense model, in nats a token."""

    pattern: str
    loss: float
    kl: float


class BridgeMeasures(TypedDict):
    """A bridge on validation text. Losses are in nats a token."""

    dense_id: str
    sparse_id: str
    tokens: int
    loss_dense: float
    loss_sparse: float
    kl_sparse: float
    """KL(dense ‖ sparse)."""
    boundaries: list[BoundaryRow]
    sampled: list[HybridRow]
    """Patterns drawn at random from all 2^2L."""


def measure_bridge(
    bridge: Bridge, tokens: np.ndarray, *, max_tokens: int = 32_768, samples: int = 8, seed: int = 0
) -> BridgeMeasures:
    """Measure all places, all single switches both ways, and some random patterns on validation tokens."""
    batches = [
        (torch.from_numpy(x).to(bridge.sparse.device), torch.from_numpy(y).to(bridge.sparse.device))
        for x, y in validation_batches(tokens, bridge.n_ctx, ROWS, max_tokens)
    ]
    rng, sublayers = random.Random(checked_seed(seed)), bridge.places - 1
    sampled = ["".join(rng.choice("ds") for _ in range(sublayers)) for _ in range(samples)]
    singles = [(bridge.single_switch(i, "sparse"), bridge.single_switch(i, "dense")) for i in range(bridge.places)]
    whole = ["d" * (sublayers + 2), "s" * (sublayers + 2)]
    rows = hybrid_rows(bridge, batches, [*whole, *(p for pair in singles for p in pair), *sampled])
    errors = _errors(bridge, [x for x, _ in batches])
    by_pattern = {row["pattern"]: row for row in rows}
    boundaries: list[BoundaryRow] = [
        {
            "boundary": bridge.boundary("dense", place),
            "sparse_boundary": bridge.boundary("sparse", place),
            "nmse_encoder": encoder,
            "nmse_decoder": decoder,
            "loss_to_sparse": by_pattern[to_sparse]["loss"],
            "kl_to_sparse": by_pattern[to_sparse]["kl"],
            "loss_to_dense": by_pattern[to_dense]["loss"],
            "kl_to_dense": by_pattern[to_dense]["kl"],
        }
        for place, ((encoder, decoder), (to_sparse, to_dense)) in enumerate(zip(errors, singles, strict=True))
    ]
    return {
        "dense_id": content_hash(bridge.dense),
        "sparse_id": content_hash(bridge.sparse),
        "tokens": sum(y.numel() for _, y in batches),
        "loss_dense": rows[0]["loss"],
        "loss_sparse": rows[1]["loss"],
        "kl_sparse": rows[1]["kl"],
        "boundaries": boundaries,
        "sampled": [by_pattern[pattern] for pattern in sampled],
    }


@torch.no_grad()
def hybrid_rows(
    bridge: Bridge, batches: list[tuple[torch.Tensor, torch.Tensor]], patterns: list[str]
) -> list[HybridRow]:
    """Loss and divergence of hybrid passes. batches: (token ids, targets), [B, T] each."""
    passes = [bridge.hybrid(pattern) for pattern in patterns]
    totals, count = torch.zeros(len(patterns), 2, dtype=torch.float64), 0
    for ids, targets in batches:
        log_p = bridge.dense(ids).float().log_softmax(dim=-1)
        for place, run in enumerate(passes):
            logits = run(ids).float()
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            totals[place] += torch.stack([loss, kl_divergence(log_p, logits)]).double().cpu() * targets.numel()
        count += targets.numel()
    means = (totals / count).tolist()
    return [{"pattern": p, "loss": loss, "kl": kl} for p, (loss, kl) in zip(patterns, means, strict=True)]


@torch.no_grad()
def _errors(bridge: Bridge, batches: list[torch.Tensor]) -> list[tuple[float, float]]:
    """(encoder's, decoder's) normalised error at each place, over all tokens together."""
    sums = torch.zeros(bridge.places, 2, dtype=torch.float64)  # of squared errors
    first = [[torch.zeros(()) for _ in range(2)] for _ in range(bridge.places)]  # sums of the targets
    second = torch.zeros(bridge.places, 2, dtype=torch.float64)
    count = 0
    for ids in batches:
        pairs = zip(bridge.streams("dense", ids), bridge.streams("sparse", ids), strict=True)
        for place, (dense, sparse) in enumerate(pairs):
            found = bridge.maps.encode(place, dense), bridge.maps.decode(place, sparse)
            for way, (guess, target) in enumerate(zip(found, (sparse, dense), strict=True)):
                sums[place, way] += (guess - target).square().sum().double().cpu()
                first[place][way] = first[place][way] + target.double().sum(dim=(0, 1)).cpu()
                second[place, way] += target.square().sum().double().cpu()
        count += ids.numel()
    means = torch.stack([torch.stack([total.square().sum() / count for total in both]) for both in first])
    spread = (second - means).clamp(min=torch.finfo(torch.float64).tiny)
    return [(encoder, decoder) for encoder, decoder in (sums / spread).tolist()]
