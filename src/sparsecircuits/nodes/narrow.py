"""Narrow passes: the last layer, from its queries on, is computed at one position of each sequence alone.

What comes after a prompt needs no more. The sites of that layer then show [B, 1, width], all but those that keys and
values come from; `is_narrow` says which.
"""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.models.sites import split_site
from sparsecircuits.models.transformer import SparseTransformer, rows_at

_WIDE = frozenset({"resid_in", "attn.act_in", "attn.k", "attn.v"})


def logits_at(
    model: SparseTransformer, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], *, narrow: bool
) -> Float[Tensor, "B V"]:
    """Logits of the next token at one position of each sequence, in a narrow pass or in one of all positions."""
    if not narrow:
        return model.last_logits(input_ids, last)
    return model.unembed(model.narrow_hidden(input_ids, last), rows_at(input_ids, last))[:, 0]


def is_narrow(site: str, n_layer: int) -> bool:
    """Whether a narrow pass has a site at one position alone."""
    layer, kind = split_site(site)
    return layer is None or (layer == n_layer - 1 and kind not in _WIDE)


def narrowed(
    values: Mapping[str, Float[Tensor, "B T width"]], n_layer: int, last: Int[Tensor, " B"]
) -> dict[str, Float[Tensor, "B S width"]]:
    """Values by site, at the positions that a narrow pass has there."""
    return {site: rows_at(x, last) if is_narrow(site, n_layer) else x for site, x in values.items()}
