"""Names of sites and nodes. Free of torch, so that what only reads names starts at once."""

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
