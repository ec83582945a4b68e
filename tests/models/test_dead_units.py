"""Neurons and attention channels that do nothing."""

import torch

from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.statistics import count_neurons, dead_units
from sparsecircuits.models.transformer import SparseTransformer

TINY = ModelConfig(vocab_size=40, n_ctx=16, n_layer=2, d_model=32, d_head=8, afrac=None)


def test_a_unit_is_dead_without_activity_or_weights_in_or_out():
    torch.manual_seed(0)
    model = SparseTransformer(TINY)
    everything = dict.fromkeys(("neurons", "q", "k", "v"), 0)
    with count_neurons(model) as seen, torch.no_grad():
        model(torch.arange(32).view(2, 16))
    assert all(fired.all() for fired in seen.units.values())
    assert dead_units(model, seen.units) == everything

    block = model.block(1)
    with torch.no_grad():
        block.mlp.c_fc.weight[3] = 0  # nothing in
        block.mlp.c_proj.weight[:, 5] = 0  # nothing out
        block.attn.c_attn.weight[7] = 0  # a q channel
        block.attn.c_attn.weight[32 + 1] = 0  # a k channel
        block.attn.c_proj.weight[:, :3] = 0  # v channels, nothing out
    seen.units["mlp.post_act"][0, :4] = False  # never active
    assert dead_units(model, seen.units) == {"neurons": 6, "q": 1, "k": 1, "v": 3}
