"""Every nonzero weight of a node, in and out, whether its other end is in the circuit or not."""

from typing import Any

import torch
from torch import Tensor

from sparsecircuits.models.sites import split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer

MOST_WEIGHTS = 200  # rows of one list; its whole length is said beside it
_QKV = ("attn.q", "attn.k", "attn.v")
_READS = ("attn.act_in", "mlp.act_in")


@torch.no_grad()
def node_weights(model: SparseTransformer, name: str) -> list[dict[str, Any]]:
    """Lists of weights of a node: {title, side ("in" or "out"), total, rows: [{name, weight, token?}]}, largest
    first. A row's name is the node at the other end; for the embedding and the unembedding it is a token's."""
    site, index = split_node(name)
    layer, kind = split_site(site)
    found = []
    for title, side, values, prefix in _matrices(model, layer, kind, index):
        places = values.nonzero().flatten()
        order = places[values[places].abs().argsort(descending=True)].tolist()
        found.append(
            {
                "title": title,
                "side": side,
                "total": len(order),
                "rows": [_row(model, prefix, place, values[place].item()) for place in order[:MOST_WEIGHTS]],
            }
        )
    return found


def _row(model: SparseTransformer, prefix: str, place: int, weight: float) -> dict[str, Any]:
    if prefix == "token" and model.tokenizer is not None and place < model.tokenizer.vocab_size:
        return {"name": f"token:{place}", "token": model.tokenizer.token(place), "weight": weight}
    return {"name": f"{prefix}:{place}" if prefix == "token" else f"{prefix}.{place}", "weight": weight}


def _matrices(model: SparseTransformer, layer: int | None, kind: str, index: int) -> list[tuple[str, str, Tensor, str]]:
    """(title, side, vector of weights, name of the other ends) of each matrix that a node is a row or column of."""
    embedding = model.wte.weight.detach()
    if layer is None:
        return [
            ("Scores of tokens", "out", model.lm_head.weight.detach()[:, index].cpu(), "token"),
            ("Written by the embedding", "in", embedding[:, index].cpu(), "token"),
        ]
    block, width = model.block(layer), model.config.attn_width
    c_attn, attn_out = block.attn.c_attn.weight.detach().cpu(), block.attn.c_proj.weight.detach().cpu()
    c_fc, mlp_out = block.mlp.c_fc.weight.detach().cpu(), block.mlp.c_proj.weight.detach().cpu()
    at = f"{layer}."
    if kind in _QKV:
        row = c_attn[_QKV.index(kind) * width + index]
        out = [("Goes to", "out", attn_out[:, index], f"{at}attn.resid_delta")] if kind == "attn.v" else []
        return [("Comes from", "in", row, f"{at}attn.act_in"), *out]
    if kind == "mlp.post_act":
        return [
            ("Comes from", "in", c_fc[index], f"{at}mlp.act_in"),
            ("Goes to", "out", mlp_out[:, index], f"{at}mlp.resid_delta"),
        ]
    if kind in _READS:
        written = [("Written by the embedding", "in", embedding[:, index].cpu(), "token")]
        into: list[tuple[str, str, Tensor, str]] = [("Goes to", "out", c_fc[:, index], f"{at}mlp.post_act")]
        if kind == "attn.act_in":
            parts = c_attn[:, index].split(width)
            into = [
                (f"Goes to {what}", "out", part, f"{at}{site}")
                for what, part, site in zip(("queries", "keys", "values"), parts, _QKV, strict=True)
            ]
        return [*(written if index < model.config.d_model else []), *into]
    source = (attn_out, "attn.v") if kind == "attn.resid_delta" else (mlp_out, "mlp.post_act")
    return [("Comes from", "in", source[0][index], f"{at}{source[1]}")]
