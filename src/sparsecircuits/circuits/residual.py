"""Which kept nodes the residual stream joins. Free of torch."""

from sparsecircuits.models.names import FINAL_SITE, split_node, split_site

_WRITES = ("attn.resid_delta", "mlp.resid_delta")
_READS = ("attn.act_in", "mlp.act_in")


def residual_links(names: list[str], d_model: int | None = None) -> list[tuple[str, str]]:
    """(write, read) pairs of kept nodes on one residual channel: what is written is read later. Not edges:
    the residual stream has no weights. A write reaches every later read of its channel. Without d_model,
    concatenated position channels are not told from others, but no write has their indices."""
    order = {name: place for place, name in enumerate(names)}
    writes, reads = [], []
    for name in names:
        full_site, index = split_node(name)
        site = split_site(full_site)[1]
        if site in _WRITES:
            writes.append((name, index))
        elif (site in _READS and (d_model is None or index < d_model)) or site == FINAL_SITE:
            reads.append((name, index))
    return [(w, r) for w, i in writes for r, j in reads if i == j and order[r] > order[w]]
