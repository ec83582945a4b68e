"""Rankings that learned gates must beat: gradients, edge attribution, weights."""

import contextlib
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.nodes.attribution import first_order_rises
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.donors import Donors
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import correct_of, pick_answers, task_loss
from sparsecircuits.nodes.topology import joins
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.tasks import PairBatch

IG_STEPS = 8


def midpoints() -> list[float]:
    """Where paths from 0 to 1 are looked at [IG_STEPS]."""
    return [(step + 0.5) / IG_STEPS for step in range(IG_STEPS)]


def gate_gradients(
    model: SparseTransformer,
    space: NodeSpace,
    frozen: Float[Tensor, " nodes"],
    config: PruneConfig,
    batches: list[PairBatch],
    at: list[float],
    calibration: Calibration | None = None,
    allowed: Bool[Tensor, " nodes"] | None = None,
) -> Float[Tensor, " nodes"]:
    """How much the loss falls per unit of each gate, with all gates (or those of the `allowed` nodes, and the others
    at 0) at the values `at`, averaged."""
    on = torch.ones(space.size) if allowed is None else allowed.float()

    def gating(gates: Tensor) -> Gating:
        return Gating(space, gates, frozen, config.carried)

    scores = [first_order_rises(model, batches, value * on, gating, calibration) for value in at]
    return torch.stack(scores).mean(dim=0)


def eap_ig_scores(
    model: SparseTransformer, space: NodeSpace, batches: list[PairBatch], calibration: Calibration | None = None
) -> Float[Tensor, " nodes"]:
    """Sum over a node's edges of |weight * Σ (source - its counterpart) * gradient at the target|.

    The counterpart is the pair's other prompt; gradients are averaged over token embeddings between the
    other prompt's and the prompt's own.
    """
    found = list(joins(model))
    totals = {join.target: torch.zeros_like(join.weight) for join in found}
    final = torch.zeros(model.config.d_model, device=model.device)
    for batch in batches:
        grads, changes = _path_gradients(model, batch, calibration or Calibration())
        for join in found:
            source = join.source.replace("attn.v", "attn.y")
            grad = grads[join.linear][..., join.offset : join.offset + join.weight.shape[0]]
            totals[join.target] += grad.flatten(0, 1).T @ changes[source].flatten(0, 1)
        final += (grads[model.final_resid] * changes["final_resid"]).sum(dim=(0, 1))
    scores = {site: torch.zeros(place.stop - place.start) for site, place in space.slices.items()}
    scores["final_resid"] += final.abs().cpu()
    for join in found:
        edge = (totals[join.target] * join.weight).abs().cpu()
        scores[join.source] += edge.sum(dim=0)
        scores[join.target] += edge.sum(dim=1)
    return space.join(scores)


def _path_gradients(
    model: SparseTransformer, batch: PairBatch, calibration: Calibration
) -> tuple[dict[torch.nn.Module, Tensor], dict[str, Tensor]]:
    """Gradients at the outputs of all matrices and of the final read, averaged over the path of embeddings;
    and by how much each activation differs from its counterpart. All [2N, T, width]."""
    pattern = r".*\.(attn\.act_in|attn\.y|mlp\.act_in|mlp\.post_act)|final_resid"
    tokens = torch.from_numpy(batch.tokens).to(model.device)
    place = torch.from_numpy(Donors.pairs(batch).place).to(model.device)
    row = torch.arange(len(tokens), device=model.device)[:, None] ^ 1
    with torch.no_grad(), record(model, pattern) as seen:
        model(tokens)
        embedded, positions = model.embed(tokens)
        own = model.wte(tokens)
    away = own[row, place] - own  # of tokens alone: positions stay
    changes = {site: x - x[row, place] for site, x in seen.items()}
    watched = [*dict.fromkeys(join.linear for join in joins(model)), model.final_resid]
    grads: dict[torch.nn.Module, Tensor] = {}
    for share in midpoints():
        start = (embedded + (1 - share) * away).requires_grad_()
        outputs = _outputs(model, watched, start, positions, batch)
        loss = task_loss(calibration(outputs.pop("logits")), correct_of(batch, model.device))
        found = torch.autograd.grad(loss, [outputs[module] for module in watched])
        for module, grad in zip(watched, found, strict=True):
            grads[module] = grads.get(module, 0) + grad / IG_STEPS
    return grads, changes


def _outputs(
    model: SparseTransformer,
    watched: list[torch.nn.Module],
    start: Float[Tensor, "B T D"],
    positions: Float[Tensor, "T P"] | None,
    batch: PairBatch,
) -> dict[torch.nn.Module | str, Tensor]:
    """Outputs of modules in a pass of all positions that begins with a given residual stream, and under "logits" the
    candidate logits."""
    outputs: dict[torch.nn.Module | str, Tensor] = {}

    def keep(module: torch.nn.Module) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.__setitem__(module, output)

    tokens, last = (torch.from_numpy(x).to(model.device) for x in (batch.tokens, batch.last))
    with contextlib.ExitStack() as stack:
        for module in watched:
            stack.callback(module.register_forward_hook(keep(module)).remove)
        hidden = model.final_norm(model.between(start, 0, model.last_boundary, positions))
        logits = model.unembed(rows_at(hidden, last), rows_at(tokens, last))[:, 0]
    outputs["logits"] = pick_answers(logits, batch).float()
    return outputs


@torch.no_grad()
def weight_scores(model: SparseTransformer, space: NodeSpace) -> Float[Tensor, " nodes"]:
    """The sum of the absolute weights on each node's edges; of the unembedding for the final read."""
    scores = {site: torch.zeros(place.stop - place.start) for site, place in space.slices.items()}
    for join in joins(model):
        size = join.weight.abs().float().cpu()
        scores[join.source] += size.sum(dim=0)
        scores[join.target] += size.sum(dim=1)
    scores["final_resid"] += model.lm_head.weight.abs().float().sum(dim=0).cpu()
    return space.join(scores)
