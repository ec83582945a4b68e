"""What bridges are trained with: normalised errors of the maps, divergences of hybrid passes, and the sparse model's
own loss (Gao et al. 2025, section 5 and appendix)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.models.transformer import SparseTransformer


@dataclass(frozen=True)
class BridgeLosses:
    """Sums over places, each a scalar with its graph: `nmse` both ways, `kl_to_sparse` of passes that go over from
    dense to sparse and `kl_to_dense` of those the other way, in nats a token; and `pretraining`, the sparse model's
    cross-entropy in nats a token."""

    nmse: Float[Tensor, ""]
    kl_to_sparse: Float[Tensor, ""]
    kl_to_dense: Float[Tensor, ""]
    pretraining: Float[Tensor, ""]


def nmse(found: Float[Tensor, "*rows D"], target: Float[Tensor, "*rows D"]) -> Float[Tensor, ""]:
    """Mean squared error over the target's variance about its mean over the batch: 1 for who always says the mean.

    No gradient flows through the variance: a target would be spread out instead of being hit.
    """
    target = target.flatten(0, -2)
    spread = (target - target.mean(dim=0)).square().mean().detach()
    error = (found.flatten(0, -2) - target).square().mean()
    return error / spread.clamp(min=torch.finfo(target.dtype).tiny)


def kl_divergence(log_p: Float[Tensor, "B T V"], logits: Float[Tensor, "B T V"]) -> Float[Tensor, ""]:
    """KL(p ‖ softmax(logits)) over the whole vocabulary, nats a token."""
    log_q = logits.float().log_softmax(dim=-1)
    return F.kl_div(log_q.flatten(0, 1), log_p.flatten(0, 1), reduction="batchmean", log_target=True)


def bridge_losses(
    bridge: Bridge, input_ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], chosen: Sequence[int]
) -> BridgeLosses:
    """The losses of a batch at some places, scaled up to what all of them would add.

    The tails that begin at the chosen places run together: each sublayer sees what came to it from the model's own
    trunk and from all earlier places as one batch. The encoder's target is detached, so that the sparse model is
    drawn to the dense one by what the decoder makes of it and by the tails alone.
    """
    share, maps = bridge.places / len(chosen), bridge.maps
    dense = bridge.streams("dense", input_ids)
    with torch.no_grad():
        log_p = bridge.dense.read_out(dense[-1], input_ids).float().log_softmax(dim=-1)

    encoded = {place: maps.encode(place, dense[place]) for place in chosen}
    entering = {bridge.boundary("sparse", place): x for place, x in encoded.items()}
    own, tails = _with_tails(bridge.sparse, input_ids, entering, trunk=True)
    trunk = [own[bridge.boundary("sparse", place)] for place in range(bridge.places)]
    decoded = {place: maps.decode(place, trunk[place]) for place in chosen}
    entering = {bridge.boundary("dense", place): x for place, x in decoded.items()}
    _, dense_tails = _with_tails(bridge.dense, input_ids, entering, trunk=False)

    errors = [nmse(encoded[i], trunk[i].detach()) + nmse(decoded[i], dense[i]) for i in chosen]
    to_sparse = [kl_divergence(log_p, bridge.sparse.read_out(x, input_ids)) for x in tails]
    to_dense = [kl_divergence(log_p, bridge.dense.read_out(x, input_ids)) for x in dense_tails]
    read_out = bridge.sparse.read_out(trunk[-1], input_ids).float()
    return BridgeLosses(
        share * torch.stack(errors).sum(),
        share * torch.stack(to_sparse).sum(),
        share * torch.stack(to_dense).sum(),
        F.cross_entropy(read_out.flatten(0, 1), targets.flatten()),
    )


def _with_tails(
    model: SparseTransformer, input_ids: Tensor, entering: dict[int, Tensor], *, trunk: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """(the residual stream at all boundaries of the model's own pass, or nothing without `trunk`; the last residual
    stream of each pass that enters at a boundary), all of them in one batch from where they enter."""
    embedded, positions = model.embed(input_ids)
    rows, own = input_ids.shape[0], []
    x = embedded if trunk else embedded[:0]
    for boundary in range(model.last_boundary + 1):
        if trunk:
            own.append(x[:rows])
        if boundary in entering:
            x = torch.cat((x, entering[boundary]))
        if boundary < model.last_boundary and len(x):
            x = model.between(x, boundary, boundary + 1, positions)
    parts = list(x.split(rows))
    return own, parts[1:] if trunk else parts
