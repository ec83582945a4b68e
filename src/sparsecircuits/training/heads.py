"""Heads whose sink has taken all they had look at a place of their own again, when a model gains logits by offset."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer

SEQUENCES = 8
"""Of text, that tell which heads sleep."""
ASLEEP = 0.02
"""Mean attention that leaves a sink, below which a head gives nothing to learn from."""
NEAREST = 4
"""Heads that wake look back 1 to so many tokens, in turn."""
PREFERENCE = 6.0
"""Logit of the offset that a waking head prefers: the larger part of its attention among 256 keys, not all."""


@torch.no_grad()
def attention_spent(model: SparseTransformer, tokens: Int[Tensor, "B T"]) -> list[Float[Tensor, " H"]]:
    """By layer, each head's attention that goes to keys and not to its sink, averaged over queries."""
    with record(model, r"\d+\.attn\.(q|k)") as seen:
        model(tokens)
    spent = []
    for layer in range(model.config.n_layer):
        q, k = (seen[f"{layer}.attn.{letter}"] for letter in "qk")
        spent.append(model.block(layer).attn.pattern(q, k).sum(dim=-1).mean(dim=(0, 2)))
    return spent


@torch.no_grad()
def wake_heads_(model: SparseTransformer, tokens: Int[Tensor, "B T"]) -> list[tuple[int, int]]:
    """Let heads that attend to nothing look back a fixed number of tokens, and write nothing at first: what the model
    does changes by no more than they did. Which heads: (layer, head).

    Such a head gets no gradient, so it would sleep for good. A model without sinks or offsets has none to wake.
    """
    woken: list[tuple[int, int]] = []
    for layer, spent in enumerate(attention_spent(model, tokens)):
        attention = model.block(layer).attn
        if attention.sink_logit is None or attention.offset_logit is None:
            continue
        writes = attention.c_proj.weight.unflatten(1, (attention.n_head, -1))
        reach = min(NEAREST, attention.offset_logit.shape[1] - 1)
        for head in (spent < ASLEEP).nonzero()[:, 0].tolist():
            attention.sink_logit[head] = 0
            attention.offset_logit[head] = 0
            attention.offset_logit[head, 1 + len(woken) % reach if reach else 0] = PREFERENCE
            writes[:, head] = 0
            woken.append((layer, head))
    return woken
