"""Names of sites and nodes. Free of torch, so that what only reads names starts at once."""

import re
from itertools import groupby

from sparsecircuits.errors import NoSuchNode, near

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
# Which sites a layer's matrices join: (source, target, module, which third of its rows or None for all).
JOINS = (
    ("attn.act_in", "attn.q", "attn.c_attn", 0),
    ("attn.act_in", "attn.k", "attn.c_attn", 1),
    ("attn.act_in", "attn.v", "attn.c_attn", 2),
    ("attn.v", "attn.resid_delta", "attn.c_proj", None),
    ("mlp.act_in", "mlp.post_act", "mlp.c_fc", None),
    ("mlp.post_act", "mlp.resid_delta", "mlp.c_proj", None),
)
MATRICES = {
    name: (rows[0][0], tuple(target for _, target, _, _ in rows))
    for name, rows in ((name, list(rows)) for name, rows in groupby(JOINS, key=lambda row: row[2]))
}
"""The same by module: the site that a layer's matrix reads, and those that it leads into, one under the other."""
# One way to write a number: no sign, space, underscore, leading zero or other script's digits, as int() would take.
_NUMBER = "(?:0|[1-9][0-9]{0,8})"
_LAYER = re.compile(rf"({_NUMBER})\.(.+)")
_NODE = re.compile(rf"((?:{_NUMBER}\.(?:{'|'.join(map(re.escape, NODE_SITES))}))|{FINAL_SITE})\.({_NUMBER})")


def node_sites(n_layer: int) -> list[str]:
    """Full names of all node sites of a model, in order of computation: `0.attn.act_in`, …, `final_resid`."""
    return [f"{layer}.{site}" for layer in range(n_layer) for site in NODE_SITES] + [FINAL_SITE]


def split_node(name: str) -> tuple[str, int]:
    """`0.mlp.post_act.863` -> (`0.mlp.post_act`, 863). Raises NoSuchNode, a UserError, for any other form."""
    found = _NODE.fullmatch(name)
    if found is None:
        layer, index = name[:80].partition(".")[0], name[:80].rpartition(".")[2]
        likely = [*(f"{layer}.{site}.{index}" for site in NODE_SITES), f"{FINAL_SITE}.{index}"]
        likely = [other for other in likely if _NODE.fullmatch(other)]
        raise NoSuchNode(
            f"there is no node {name[:80]!r}{near(name, likely)}: nodes are called like 0.mlp.post_act.3 "
            f"or {FINAL_SITE}.3, with the kinds {', '.join(NODE_SITES)}"
        )
    return found[1], int(found[2])


def split_site(site: str) -> tuple[int | None, str]:
    """`0.mlp.post_act` -> (0, `mlp.post_act`); `final_resid` -> (None, `final_resid`)."""
    found = _LAYER.fullmatch(site)
    return (int(found[1]), found[2]) if found else (None, site)
