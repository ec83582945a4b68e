"""Compile every CPU kernel before a clock starts (Numba compiles on first use, and caches on disk)."""

import torch

from sparsecircuits.kernels.abstopk import abstopk
from sparsecircuits.kernels.attention import causal_attention
from sparsecircuits.kernels.cross_entropy import linear_cross_entropy
from sparsecircuits.kernels.gate import gate_channels
from sparsecircuits.kernels.gelu import gelu_abstopk
from sparsecircuits.kernels.held import Held, Pattern
from sparsecircuits.kernels.held_attention import held_attention
from sparsecircuits.kernels.held_mlp import held_mlp
from sparsecircuits.kernels.project import project_topk_
from sparsecircuits.kernels.rms_norm import rms_norm
from sparsecircuits.kernels.sparse_linear import sparse_linear


def warm_up() -> None:
    """Run each kernel once, forward and backward, on a tiny input. Draws no random numbers."""
    with torch.enable_grad():
        x = torch.linspace(-1, 1, 64).view(1, 4, 16).requires_grad_()
        weight = torch.zeros(16, 16)
        weight[0, 0] = 1.0  # sparse enough for the sparse product
        y = sparse_linear(
            gelu_abstopk(abstopk(rms_norm(x, torch.ones(16, requires_grad=True)), 8), 4), weight, torch.zeros(16)
        )
        y = gate_channels(causal_attention(y, y, y, 2), torch.ones(16, requires_grad=True), torch.zeros(16))
        ids = torch.arange(4)
        for unembedding in (weight, torch.ones(16, 16)):
            table = torch.zeros(16, 16, requires_grad=True)
            loss = linear_cross_entropy(y.flatten(0, 1), unembedding, torch.zeros(16), ids, table, ids)
            loss.backward(retain_graph=True)
        held = Held(Pattern.of(weight), torch.ones(1, requires_grad=True))
        held.linear(held.embed(ids)).sum().backward()
        y = held.embed(ids)
        held_mlp(y, held, torch.zeros(16), held, torch.zeros(16), 4).sum().backward(retain_graph=True)
        three = Held(Pattern.of(torch.cat((weight, weight, weight))), torch.ones(3, requires_grad=True))
        y = held_attention(y.unsqueeze(0), three, torch.zeros(48), held, torch.zeros(16), None, 1, (4, 4, 4))
        y.sum().backward()
    for dim in (0, 1):
        project_topk_(torch.arange(256.0).view(16, 16), 100, 2, dim)
