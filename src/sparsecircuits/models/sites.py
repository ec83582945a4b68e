"""Sites: the places where nodes live. One small module each, so that everything else is a forward hook."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sparsecircuits.kernels import abstopk, gelu_abstopk

# Sites whose channels can be nodes of a circuit (method: Gao et al. 2025, section 2.2), in order of
# computation within a layer. `final_resid` follows the last layer.
NODE_SITES = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)
FINAL_SITE = "final_resid"


class Site(nn.Module):
    """Applies AbsTopK to the last dimension where the config says so, and otherwise passes through.

    activation: the function that comes before, at the site that follows one (`mlp.post_act`). The site's output
    is the activation that papers call by its name; recording, ablating and gating are forward hooks on it.
    """

    is_site = True  # how hooks find them, here and in the Hugging Face model

    def __init__(self, k: int | None = None, activation: Literal["gelu", "relu"] | None = None) -> None:
        super().__init__()
        self.k, self.activation = k, activation

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width], same shape out."""
        if self.activation == "gelu":
            return F.gelu(x) if self.k is None else gelu_abstopk(x, self.k)
        x = F.relu(x) if self.activation == "relu" else x
        return x if self.k is None else abstopk(x, self.k)

    def extra_repr(self) -> str:
        return "" if self.k is None else f"k={self.k}"


def node_sites(n_layer: int) -> list[str]:
    """Full names of all node sites of a model, in order of computation: `0.attn.act_in`, …, `final_resid`."""
    return [f"{layer}.{site}" for layer in range(n_layer) for site in NODE_SITES] + [FINAL_SITE]


def split_node(name: str) -> tuple[str, int]:
    """`0.mlp.post_act.863` -> (`0.mlp.post_act`, 863)."""
    site, _, index = name.rpartition(".")
    return site, int(index)


def split_site(site: str) -> tuple[int | None, str]:
    """`0.mlp.post_act` -> (0, `mlp.post_act`); `final_resid` -> (None, `final_resid`)."""
    layer, _, rest = site.partition(".")
    return (int(layer), rest) if layer.isdigit() else (None, site)
