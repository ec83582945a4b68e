"""The released architecture written out once more from its format's description: dicts and plain tensor
functions, no module of the package. Slow and readable; the loader and the model are compared with it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULTS = {
    "block_size": 1024, "vocab_size": 50304, "n_layer": 12, "n_head": 12, "d_head": None, "d_model": 768,
    "d_mlp": None, "bias": True, "rms_norm": False, "residual_activation_type": "identity",
    "activation_type": "gelu", "afrac": None, "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True, "d_pos_emb": None, "enable_bigram_table": False, "sink": False,
}  # fmt: skip


def forward(raw: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """(logits, activations by hook name) of a released checkpoint. ids: [batch, sequence]."""
    c = {**DEFAULTS, **raw}
    heads, length = c["n_head"], ids.shape[1]
    d_head = c["d_head"] or c["d_model"] // heads
    sites = c["afrac_loctypes"].split(",") if c["afrac"] is not None else []
    hooks: dict[str, Tensor] = {}

    def norm(x: Tensor, key: str) -> Tensor:
        weight, bias = state[f"transformer.{key}.weight"], state.get(f"transformer.{key}.bias")
        if c["rms_norm"] or (".ln_p" in key and bias is None and c.get("ln_bias", True)):
            return x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * weight
        centred = x - x.mean(-1, keepdim=True)
        x = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
        return x if bias is None else x + bias

    def linear(x: Tensor, key: str) -> Tensor:
        out = x @ state[f"transformer.{key}.weight"].T
        return out + state[f"transformer.{key}.bias"] if c["bias"] else out

    def top(x: Tensor, site: str) -> Tensor:
        if site not in sites:
            return x
        k = int(c["afrac"] * x.shape[-1])
        out = torch.zeros_like(x)
        places = x.abs().topk(k, dim=-1).indices
        return out.scatter(-1, places, x.gather(-1, places))

    def read(x: Tensor, layer: int, which: int) -> Tensor:
        x = norm(x, f"h.{layer}.ln_{which}")
        if not c["d_pos_emb"]:
            return x
        positions = norm(state["transformer.wpe.weight"][:length], f"h.{layer}.ln_p{which}")
        return torch.cat((x, positions.expand(*x.shape[:-1], -1)), dim=-1)

    def added(x: Tensor, site: str) -> Tensor:
        x = x.clamp(min=0) if c["residual_activation_type"] == "relu" else x
        return top(x, site)

    x = state["transformer.wte.weight"][ids]
    if not c["d_pos_emb"]:
        x = x + state["transformer.wpe.weight"][:length]
    for i in range(c["n_layer"]):
        hooks[f"{i}.resid_in"] = x
        hooks[f"{i}.attn.act_in"] = act_in = top(read(x, i, 1), "attn_in")
        parts = linear(act_in, f"h.{i}.attn.c_attn").chunk(3, dim=-1)
        q, k, v = (top(part, f"attn_{name}") for part, name in zip(parts, "qkv", strict=True))
        hooks |= {f"{i}.attn.q": q, f"{i}.attn.k": k, f"{i}.attn.v": v}
        carried = []
        for head in range(heads):
            channels = slice(head * d_head, (head + 1) * d_head)
            scores = q[..., channels] @ k[..., channels].mT / math.sqrt(d_head)
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
            weights = scores.exp()
            total = weights.sum(-1, keepdim=True)
            if c["sink"]:
                total = total + state[f"transformer.h.{i}.attn.attn_imp.sink_logit"][head].exp()
            carried.append(weights / total @ v[..., channels])
        hooks[f"{i}.attn.y"] = y = torch.cat(carried, dim=-1)
        hooks[f"{i}.attn.resid_delta"] = delta = top(linear(y, f"h.{i}.attn.c_proj"), "attn_out")
        hooks[f"{i}.resid_mid"] = x = added(x + delta, "resid_post_attn")
        hooks[f"{i}.mlp.act_in"] = act_in = top(read(x, i, 2), "mlp_in")
        hidden = linear(act_in, f"h.{i}.mlp.c_fc")
        hidden = hidden.clamp(min=0) if c["activation_type"] == "relu" else F.gelu(hidden)
        hooks[f"{i}.mlp.post_act"] = hidden = top(hidden, "mlp_neuron")
        hooks[f"{i}.mlp.resid_delta"] = delta = top(linear(hidden, f"h.{i}.mlp.c_proj"), "mlp_out")
        x = added(x + delta, "resid_post_mlp")
    hooks["final_resid"] = x
    unembedding = state["transformer.wte.weight"] if c["tied_unembed"] else state["lm_head.weight"]
    logits = norm(x, "ln_f") @ unembedding.T + state.get("final_logits_bias", torch.zeros(c["vocab_size"]))
    return (logits + state["bigram_table"][ids] if c["enable_bigram_table"] else logits), hooks
