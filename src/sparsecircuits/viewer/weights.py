"""Every nonzero weight of a node, in and out, whether its other end is in the circuit or not."""

from typing import Literal

import torch
from torch import Tensor

from sparsecircuits.models.sites import split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.topology import Join, joins_at
from sparsecircuits.viewer.schema import WeightList, WeightRow

MOST_WEIGHTS = 200  # rows of one list; its whole length is said beside it

Ends = tuple[str, Literal["in", "out"], Tensor, str]
"""Title, side, vector of weights and name of the other ends, of one matrix that a node is a row or column of."""


@torch.no_grad()
def node_weights(model: SparseTransformer, name: str) -> list[WeightList]:
    """Lists of weights of a node, by matrix."""
    site, index = split_node(name)
    layer, kind = split_site(site)
    found = []
    for title, side, values, prefix in _matrices(model, layer, kind, index):
        places = values.nonzero().flatten()
        order = places[values[places].abs().argsort(descending=True)].tolist()
        found.append(
            WeightList(
                title=title,
                side=side,
                total=len(order),
                rows=[_row(model, prefix, place, values[place].item()) for place in order[:MOST_WEIGHTS]],
            )
        )
    return found


def _row(model: SparseTransformer, prefix: str, place: int, weight: float) -> WeightRow:
    if prefix == "token" and model.tokenizer is not None and place < model.tokenizer.vocab_size:
        return WeightRow(name=f"token:{place}", token=model.tokenizer.token(place), weight=weight)
    return WeightRow(name=f"{prefix}:{place}" if prefix == "token" else f"{prefix}.{place}", weight=weight)


def _matrices(model: SparseTransformer, layer: int | None, kind: str, index: int) -> list[Ends]:
    if layer is None:
        scores: Ends = ("Scores of tokens", "out", model.lm_head.weight.detach()[:, index].cpu(), "token")
        return [scores, *_written(model, index)]
    into, out = joins_at(model, f"{layer}.{kind}")
    return [
        *([] if into else _written(model, index)),  # what no matrix leads into reads the residual stream
        *(("Comes from", "in", join.weight[index].cpu(), join.source) for join in into),
        *((_goes_to(join), "out", join.weight[:, index].cpu(), join.target) for join in out),
    ]


def _written(model: SparseTransformer, index: int) -> list[Ends]:
    """What the embedding writes to a channel of the residual stream; channels of positions it has none of."""
    if index >= model.config.d_model:
        return []
    return [("Written by the embedding", "in", model.wte.weight.detach()[:, index].cpu(), "token")]


def _goes_to(join: Join) -> str:
    name = {"attn.q": " queries", "attn.k": " keys", "attn.v": " values"}.get(split_site(join.target)[1], "")
    return f"Goes to{name}"
