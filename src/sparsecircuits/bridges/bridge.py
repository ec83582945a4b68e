"""`Bridge`: a dense and a sparse model of one depth, and the maps between their residual streams (Gao et al. 2025,
section 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsecircuits.errors import UserError
from sparsecircuits.kernels import abstopk
from sparsecircuits.models.transformer import SparseTransformer

Side = Literal["dense", "sparse"]
LETTERS: dict[str, Side] = {"d": "dense", "s": "sparse"}


class Maps(nn.Module):
    """An encoder (affine, then AbsTopK) and a decoder (affine) for each of the 2L + 1 boundaries of the residual stream
    before the norms. kept: how many channels AbsTopK keeps; None: all."""

    def __init__(self, boundaries: int, d_dense: int, d_sparse: int, kept: int | None) -> None:
        super().__init__()
        if kept is not None and not 1 <= kept <= d_sparse:
            raise UserError(f"an encoder of {d_sparse} channels cannot keep {kept} of them")
        self.encoders = nn.ModuleList(nn.Linear(d_dense, d_sparse) for _ in range(boundaries))
        self.decoders = nn.ModuleList(nn.Linear(d_sparse, d_dense) for _ in range(boundaries))
        self.kept = kept

    def encode(self, boundary: int, x: Float[Tensor, "*rows Dd"]) -> Float[Tensor, "*rows Ds"]:
        """The sparse residual stream that stands for a dense one."""
        found: Tensor = self.encoders[boundary](x)
        return found if self.kept is None else abstopk(found, self.kept)

    def decode(self, boundary: int, x: Float[Tensor, "*rows Ds"]) -> Float[Tensor, "*rows Dd"]:
        """The dense residual stream that stands for a sparse one."""
        found: Tensor = self.decoders[boundary](x)
        return found

    def decoder(self, boundary: int) -> nn.Linear:
        """The decoder at a boundary; column j of its weight is the dense direction of sparse channel j."""
        found = self.decoders[boundary]
        assert isinstance(found, nn.Linear)
        return found


@dataclass
class Bridge:
    """A frozen dense model, a sparse one, and the maps between their residual streams at every sublayer boundary.

    Boundary 2i is before layer i's attention, 2i + 1 before its MLP, and 2L after the last layer.
    """

    dense: SparseTransformer
    sparse: SparseTransformer
    maps: Maps

    def __post_init__(self) -> None:
        require_bridgeable(self.dense, self.sparse)
        self.dense.requires_grad_(False)

    @classmethod
    def between(cls, dense: SparseTransformer, sparse: SparseTransformer, kept: int | None = None) -> "Bridge":
        """A bridge with random maps. kept: how many channels the encoders' AbsTopK keeps; None: all."""
        require_bridgeable(dense, sparse)
        maps = Maps(sparse.last_boundary + 1, dense.config.d_model, sparse.config.d_model, kept)
        return cls(dense, sparse, maps.to(sparse.device))

    @property
    def n_ctx(self) -> int:
        """Longest sequence, in tokens, that both models take."""
        return min(self.dense.config.n_ctx, self.sparse.config.n_ctx)

    @property
    def boundaries(self) -> int:
        """How many boundaries there are: 2L + 1."""
        return self.sparse.last_boundary + 1

    def model(self, side: Side) -> SparseTransformer:
        """One of the two models."""
        return self.dense if side == "dense" else self.sparse

    def crossed(self, boundary: int, x: Float[Tensor, "B T D"], to: Side) -> Float[Tensor, "B T other"]:
        """The residual stream of one model at a boundary as that of the other."""
        return self.maps.encode(boundary, x) if to == "sparse" else self.maps.decode(boundary, x)

    def hybrid(self, pattern: str) -> Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]]:
        """A pass that switches between the models: logits of the next token from token ids.

        pattern: a letter for each sublayer, d or s; or two more, for what embeds and what reads out, which else are
        done by the models of the first and the last sublayer. Raises UserError for any other pattern.
        """
        sides = self.sides(pattern)

        def run(input_ids: Tensor) -> Tensor:
            positions = {side: self.model(side).embed(input_ids)[1] for side in set(sides)}
            x, start = self.model(sides[0]).embed(input_ids)[0], 0
            for boundary in range(self.boundaries):
                here, following = sides[boundary], sides[boundary + 1]
                if here != following:
                    x = self.model(here).between(x, start, boundary, positions[here])
                    x, start = self.crossed(boundary, x, following), boundary
            last = sides[-1]
            x = self.model(last).between(x, start, self.boundaries - 1, positions[last])
            return self.model(last).read_out(x, input_ids)

        return run

    def sides(self, pattern: str) -> list[Side]:
        """Which model embeds, computes each sublayer, and reads out: 2L + 2 entries."""
        sublayers = self.boundaries - 1
        unknown = sorted(set(pattern) - set(LETTERS))
        if unknown or len(pattern) not in (sublayers, sublayers + 2):
            raise UserError(
                f"{pattern[:80]!r} is no pattern for this bridge: give {sublayers} letters d and s, one for each "
                f"sublayer, or {sublayers + 2}, the embedding first and the unembedding last"
            )
        whole = pattern if len(pattern) == sublayers + 2 else pattern[0] + pattern + pattern[-1]
        return [LETTERS[letter] for letter in whole]

    def single_switch(self, boundary: int, to: Side) -> str:
        """The pattern that begins in the other model and goes over to this one at a boundary, for good."""
        first, then = ("d", "s") if to == "sparse" else ("s", "d")
        return first * (boundary + 1) + then * (self.boundaries - boundary)


def require_bridgeable(dense: SparseTransformer, sparse: SparseTransformer) -> None:
    """Raise UserError for two models that no bridge can join."""
    for name in ("n_layer", "vocab_size"):
        theirs, ours = getattr(dense.config, name), getattr(sparse.config, name)
        if theirs != ours:
            raise UserError(f"a bridge joins models of one {name}: the dense one has {theirs}, the sparse one {ours}")
    hashes = {model.tokenizer.content_hash for model in (dense, sparse) if model.tokenizer is not None}
    if len(hashes) > 1:
        raise UserError("a bridge joins models of one tokenizer: these two have different ones")
    if dense.device != sparse.device:
        raise UserError(f"the dense model is on {dense.device}, the sparse one on {sparse.device}: bring them together")


@torch.no_grad()
def residual_streams(model: SparseTransformer, input_ids: Int[Tensor, "B T"]) -> list[Float[Tensor, "B T D"]]:
    """The residual stream at all boundaries, from the embedding's on."""
    x, positions = model.embed(input_ids)
    found = [x]
    for boundary in range(model.last_boundary):
        x = model.between(x, boundary, boundary + 1, positions)
        found.append(x)
    return found
