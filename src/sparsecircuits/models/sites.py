"""Sites: the places where nodes live. One small module each, so that everything else is a forward hook."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsecircuits.kernels import abstopk, gate_channels, gelu_abstopk
from sparsecircuits.models.config import Activation
from sparsecircuits.models.names import FINAL_SITE, NODE_SITES, node_sites, split_node, split_site

__all__ = ["FINAL_SITE", "NODE_SITES", "Site", "activated", "node_sites", "split_node", "split_site"]


def activated(x: Tensor, activation: Activation) -> Tensor:
    """The neurons' activation function, of x of any shape."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Site(nn.Module):
    """Applies AbsTopK to the last dimension where the config says so, and otherwise passes through.

    activation: the function that comes before, at the site that follows one (`mlp.post_act`). freezes: how many
    channels it has, where the model says which of them are constants (`ModelConfig.frozen_nodes`): these compete in
    AbsTopK as they would, and then carry their constant. The site's output is the activation that papers call by its
    name; recording, ablating and gating are forward hooks on it.
    """

    gate: Tensor | None
    frozen: Tensor | None

    is_site = True  # how hooks find them, here and in the Hugging Face model

    def __init__(
        self,
        k: int | None = None,
        activation: Activation | None = None,
        freezes: int | None = None,
    ) -> None:
        super().__init__()
        self.k, self.activation = k, activation
        self.register_buffer("gate", None if freezes is None else torch.ones(freezes))
        self.register_buffer("frozen", None if freezes is None else torch.zeros(freezes))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width], same shape out."""
        if self.activation == "gelu" and self.k is not None:
            x = gelu_abstopk(x, self.k)
        else:
            x = self.activated(x)
            x = x if self.k is None else abstopk(x, self.k)
        if self.gate is None or self.frozen is None:
            return x
        return gate_channels(x, self.gate, self.frozen)

    def activated(self, x: Tensor) -> Tensor:
        """The activation function alone, of x of any shape."""
        return x if self.activation is None else activated(x, self.activation)

    def extra_repr(self) -> str:
        return "" if self.k is None else f"k={self.k}"
