"""Operators that PyTorch lacks or does slowly: AbsTopK, the exact top-k projection of a weight matrix, products with a
weight held as its nonzeros and their gradients at these alone, and others.

Each is one torch.library operator with a plain-PyTorch reference, a fast CPU implementation and, for those named, one
in Triton for CUDA. On a GPU the others use PyTorch's own operators. `use` says which implementation runs.
"""

from sparsecircuits.kernels._uncompiled import wait_for_compiler
from sparsecircuits.kernels.abstopk import abstopk, abstopk_reference
from sparsecircuits.kernels.attention import (
    attention_at,
    attention_pattern,
    attention_reference,
    causal_attention,
    split_heads,
)
from sparsecircuits.kernels.choice import operators, use
from sparsecircuits.kernels.cross_entropy import linear_cross_entropy
from sparsecircuits.kernels.gate import gate_channels
from sparsecircuits.kernels.gelu import gelu_abstopk
from sparsecircuits.kernels.held import Embedding, Held, Pattern
from sparsecircuits.kernels.held_attention import held_attention
from sparsecircuits.kernels.held_mlp import held_mlp
from sparsecircuits.kernels.project import project_topk_, topk_mask_reference
from sparsecircuits.kernels.rms_norm import RMSNorm, rms_norm
from sparsecircuits.kernels.sparse_linear import Linear, sparse_linear
from sparsecircuits.kernels.warm_up import warm_up

__all__ = [
    "Embedding",
    "Held",
    "Linear",
    "Pattern",
    "RMSNorm",
    "abstopk",
    "abstopk_reference",
    "attention_at",
    "attention_pattern",
    "attention_reference",
    "causal_attention",
    "gate_channels",
    "gelu_abstopk",
    "held_attention",
    "held_mlp",
    "linear_cross_entropy",
    "operators",
    "project_topk_",
    "rms_norm",
    "sparse_linear",
    "split_heads",
    "topk_mask_reference",
    "use",
    "warm_up",
]

wait_for_compiler()
