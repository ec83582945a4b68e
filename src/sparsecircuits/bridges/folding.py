"""Nodes and edges switched off for good: folded into biases where that changes nothing else, otherwise as gates that
are stored with the model.

What reads a node through a matrix alone sees a constant as a bias: the matrix's column becomes zero, and the node
itself still competes in AbsTopK as it did. That is exact for reads of the residual stream, for MLP neurons, and for
values where no sink takes a share of them. A query, a key, a value beside a sink or a write is a constant where it is
made, a zero row and a bias, which is exact where no AbsTopK chooses among its site's channels. All others need a gate.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.hooks import hook_points
from sparsecircuits.models.sites import split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.edges import Edges
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.topology import Join, joins, joins_at

_READ_BY_MATRICES = frozenset({"attn.act_in", "mlp.act_in", "mlp.post_act"})
_MADE_BY_A_MATRIX = frozenset({"attn.q", "attn.k", "attn.v", "attn.resid_delta", "mlp.resid_delta"})


@dataclass(frozen=True)
class Folded:
    """An edited model, and how its nodes were switched off: as biases of what reads them, as biases where they are
    made, or by stored gates; and how many edges became part of a bias."""

    model: SparseTransformer
    at_readers: int
    at_source: int
    gated: int
    edges: int


@torch.no_grad()
def switch_off(
    model: SparseTransformer,
    off: Bool[Tensor, " nodes"],
    frozen: Float[Tensor, " nodes"],
    removed: Edges | None = None,
) -> Folded:
    """A copy of a model that computes what the model does under gates: nodes in the mask `off` carry their `frozen`
    value, and `removed` edges that of their source.

    The result is equal to `nodes.gating.Gating` with these gates up to rounding.
    """
    space = NodeSpace.of(model.config)
    ways = {site: _way(model, site) for site in space.slices}
    masks, values = space.split(off), space.split(frozen)
    gated = any(bool(masks[site].any()) for site, way in ways.items() if way == "gate")
    edited = _copy(model, gated=gated)
    cut = 0 if removed is None else _cut(edited, space, removed, values)
    counts = {"readers": 0, "source": 0, "gate": 0}
    points = hook_points(edited)
    for site, way in ways.items():
        channels = masks[site].nonzero().flatten().to(edited.device)
        constants = values[site].to(edited.device)[channels]
        counts[way] += len(channels)
        if not len(channels):
            continue
        into, out_of = joins_at(edited, site)
        if way == "readers":
            _fold_columns(out_of, channels, constants)
        elif way == "source":
            _fold_rows(into, channels, constants)
        else:
            gate, carried = points[site].gate, points[site].frozen
            assert isinstance(gate, Tensor) and isinstance(carried, Tensor)  # noqa: PT018 (no test)
            gate[channels], carried[channels] = 0.0, constants
    return Folded(edited, counts["readers"], counts["source"], counts["gate"], cut)


def _way(model: SparseTransformer, site: str) -> str:
    """How nodes of a site are switched off: at their readers, at their source, or by a gate."""
    kind, config = split_site(site)[1], model.config
    if kind in _READ_BY_MATRICES or (kind == "attn.v" and not config.sink):
        return "readers"
    # A gate that the model has already would act after the matrix.
    if kind in _MADE_BY_A_MATRIX and config.abstopk_k(kind) is None and not config.frozen_nodes:
        return "source"
    return "gate"


def _copy(model: SparseTransformer, *, gated: bool) -> SparseTransformer:
    """The same model with biases, and with stored gates if they are asked for or there already."""
    config = dataclasses.replace(model.config, bias=True, frozen_nodes=gated or model.config.frozen_nodes)
    copy = SparseTransformer(config).to(model.device)
    state = copy.state_dict()
    missing = set(state) - set(model.state_dict())  # biases that were not there are 0, gates are open
    assert all(name.endswith(("bias", "gate", "frozen")) for name in missing)
    copy.load_state_dict({**state, **model.state_dict()})
    copy.tokenizer, copy.name, copy.corpus = model.tokenizer, model.name, model.corpus
    return copy.eval()


def _bias(join: Join) -> Float[Tensor, " target"]:
    bias = join.linear.bias
    assert bias is not None  # `_copy` gave it one
    return bias.data[join.offset : join.offset + join.weight.shape[0]]


def _fold_columns(found: Iterable[Join], channels: Tensor, constants: Tensor) -> None:
    for join in found:
        _bias(join).add_(join.weight[:, channels] @ constants)
        join.weight[:, channels] = 0.0


def _fold_rows(found: Iterable[Join], channels: Tensor, constants: Tensor) -> None:
    for join in found:
        _bias(join)[channels] = constants
        join.weight[channels] = 0.0


def _cut(model: SparseTransformer, space: NodeSpace, removed: Edges, values: dict[str, Tensor]) -> int:
    """Weights become zero, and what their sources carry part of a bias; a value's edge takes nothing from a sink."""
    cut = 0
    for join in joins(model):
        source, target = space.slices[join.source], space.slices[join.target]
        here = removed[removed.joining(source, target)]
        if not len(here):
            continue
        columns, rows = (here.source - source.start).to(model.device), (here.target - target.start).to(model.device)
        carried = join.weight[rows, columns] * values[join.source].to(model.device)[columns]
        _bias(join).index_add_(0, rows, carried)
        join.weight[rows, columns] = 0.0
        cut += len(here)
    return cut
