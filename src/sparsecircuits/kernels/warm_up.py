"""Compile every CPU kernel before a clock starts (Numba compiles on first use, and caches on disk)."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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


def warm_up(part: Literal["all", "dense", "held"] = "all") -> None:
    """Run each kernel once, forward and backward, on a tiny input. Draws no random numbers.

    part: "held" are the kernels of weights that are held as their nonzeros, "dense" all others, each about half of the
    work; two processes that take one each share the cache.
    """
    with torch.enable_grad():
        if part in ("all", "dense"):
            _dense()
            _decode()
        if part in ("all", "held"):
            _held()


def _weight() -> Float[Tensor, "16 16"]:
    weight = torch.zeros(16, 16)
    weight[0, 0] = 1.0  # sparse enough for the sparse product
    return weight


def _dense() -> None:
    x, weight = torch.linspace(-1, 1, 64).view(1, 4, 16).requires_grad_(), _weight()
    y = sparse_linear(
        gelu_abstopk(abstopk(rms_norm(x, torch.ones(16, requires_grad=True)), 8), 4), weight, torch.zeros(16)
    )
    y = gate_channels(causal_attention(y, y, y, 2), torch.ones(16, requires_grad=True), torch.zeros(16))
    ids = torch.arange(4)
    for unembedding in (weight, torch.ones(16, 16)):
        table = torch.zeros(16, 16, requires_grad=True)
        loss = linear_cross_entropy(y.flatten(0, 1), unembedding, torch.zeros(16), ids, table, ids)
        loss.backward(retain_graph=True)
    for dim in (0, 1):
        project_topk_(torch.arange(256.0).view(16, 16), 100, 2, dim)


def _held() -> None:
    weight, ids = _weight(), torch.arange(4)
    held = Held(Pattern.of(weight), torch.ones(1, requires_grad=True))
    held.linear(held.embed(ids)).sum().backward()
    y = held.embed(ids)
    held_mlp(y, held, torch.zeros(16), held, torch.zeros(16), 4).sum().backward(retain_graph=True)
    three = Held(Pattern.of(torch.cat((weight, weight, weight))), torch.ones(3, requires_grad=True))
    y = held_attention(y.unsqueeze(0), three, torch.zeros(48), held, torch.zeros(16), None, 1, (4, 4, 4))
    y.sum().backward()


def _decode() -> None:
    """A token through a model of one layer without nonzeros, with weights of both types."""
    from sparsecircuits.kernels import _cpu, _cpu_decode

    sizes = np.array([1, 4, 0, 1, 4, 4, 4, 0, 0, 0], dtype=np.int64)
    kept, token = np.full(_cpu_decode.SITES, -1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    starts, bases = np.zeros(20, dtype=np.int32), np.array([0, 5, 10, 15, -1], dtype=np.int64)
    vectors, places = np.zeros(_cpu_decode.VECTORS + 3, dtype=np.int64), np.zeros(0, dtype=np.uint16)
    single, square = np.zeros(64, dtype=np.float32), np.zeros((0, 4), dtype=np.float32)
    floats, integers = _cpu_decode.room_for(sizes, 16)
    for weights in (np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.uint16)):
        with _cpu.LOCK:
            _cpu_decode.decode(
                token, token, sizes, kept, starts, bases, np.zeros(0, np.uint8), np.zeros(3, np.int64), places, places,
                weights, single, vectors, square, np.zeros((2, 1, 0), np.float32), square, single, single.copy(),
                places, 16, True, np.zeros((1, _cpu_decode.SITES), np.int32), np.zeros((1, floats), np.float32),
                np.zeros((1, integers), np.int32), np.zeros((1, 4), np.float32), 1,
            )  # fmt: skip
