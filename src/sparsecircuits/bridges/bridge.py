"""`Bridge`: a dense and a sparse model, and the maps between their residual streams (Gao et al. 2025, section 5)."""

import itertools
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Joined:
    """Which boundaries of the residual streams of two models are joined, a place for each: boundary 2i of a model is
    before its layer i's attention, 2i + 1 before its MLP, and 2L after its last layer."""

    dense: tuple[int, ...]
    sparse: tuple[int, ...]

    @classmethod
    def all_of(cls, n_layer: int) -> "Joined":
        """Each boundary of one with the same of the other."""
        each = tuple(range(2 * n_layer + 1))
        return cls(each, each)

    @classmethod
    def parse(cls, pairs: Sequence[str]) -> "Joined":
        """From DENSE:SPARSE, one for each place. Raises UserError for anything else."""
        try:
            dense, sparse = zip(*(map(int, pair.split(":", 1)) for pair in pairs), strict=True)
        except ValueError as error:
            raise UserError(f"places are pairs DENSE:SPARSE of boundaries, as in 0:0 4:2 8:4, not {pairs}") from error
        return cls(dense, sparse)

    def require_fit(self, dense: int, sparse: int) -> None:
        """Raise UserError unless both rise from 0 to these last boundaries, a sublayer or more at a time."""
        for name, found, last in (("dense", self.dense, dense), ("sparse", self.sparse, sparse)):
            rises = all(one < other for one, other in itertools.pairwise(found))
            if not found or found[0] != 0 or found[-1] != last or not rises:
                shown = " ".join(map(str, found))
                raise UserError(f"the places' boundaries of the {name} model must rise from 0 to {last}, not {shown}")


class Maps(nn.Module):
    """An encoder (affine, then AbsTopK) and a decoder (affine) for each place where the residual streams are joined,
    before the norms. kept: how many channels AbsTopK keeps; None: all."""

    def __init__(self, places: int, d_dense: int, d_sparse: int, kept: int | None) -> None:
        super().__init__()
        if kept is not None and not 1 <= kept <= d_sparse:
            raise UserError(f"an encoder of {d_sparse} channels cannot keep {kept} of them")
        self.encoders = nn.ModuleList(nn.Linear(d_dense, d_sparse) for _ in range(places))
        self.decoders = nn.ModuleList(nn.Linear(d_sparse, d_dense) for _ in range(places))
        self.kept = kept

    def encode(self, place: int, x: Float[Tensor, "*rows Dd"]) -> Float[Tensor, "*rows Ds"]:
        """The sparse residual stream that stands for a dense one."""
        found: Tensor = self.encoders[place](x)
        return found if self.kept is None else abstopk(found, self.kept)

    def decode(self, place: int, x: Float[Tensor, "*rows Ds"]) -> Float[Tensor, "*rows Dd"]:
        """The dense residual stream that stands for a sparse one."""
        found: Tensor = self.decoders[place](x)
        return found

    def decoder(self, place: int) -> nn.Linear:
        """The decoder at a place; column j of its weight is the dense direction of sparse channel j."""
        found = self.decoders[place]
        assert isinstance(found, nn.Linear)
        return found


@dataclass
class Bridge:
    """A frozen dense model, a sparse one, and the maps between their residual streams where these are joined: at every
    sublayer boundary of models of one depth, or at some of models of two."""

    dense: SparseTransformer
    sparse: SparseTransformer
    maps: Maps
    joined: Joined

    def __post_init__(self) -> None:
        require_bridgeable(self.dense, self.sparse)
        self.joined.require_fit(self.dense.last_boundary, self.sparse.last_boundary)
        self.dense.requires_grad_(False)

    @classmethod
    def between(
        cls,
        dense: SparseTransformer,
        sparse: SparseTransformer,
        kept: int | None = None,
        joined: Joined | None = None,
    ) -> "Bridge":
        """A bridge with random maps. kept: how many channels the encoders' AbsTopK keeps; None: all. joined: which
        boundaries; None: all, of models of one depth (UserError for others)."""
        if joined is None:
            layers = dense.config.n_layer, sparse.config.n_layer
            if len(set(layers)) > 1:
                raise UserError(
                    f"the dense model has {layers[0]} layers, the sparse one {layers[1]}: say with places which "
                    "boundaries are joined"
                )
            joined = Joined.all_of(layers[0])
        maps = Maps(len(joined.dense), dense.config.d_model, sparse.config.d_model, kept)
        return cls(dense, sparse, maps.to(sparse.device), joined)

    @property
    def n_ctx(self) -> int:
        """Longest sequence, in tokens, that both models take."""
        return min(self.dense.config.n_ctx, self.sparse.config.n_ctx)

    @property
    def places(self) -> int:
        """At how many places the models are joined: 2L + 1 where that is at all boundaries."""
        return len(self.joined.dense)

    def model(self, side: Side) -> SparseTransformer:
        """One of the two models."""
        return self.dense if side == "dense" else self.sparse

    def boundary(self, side: Side, place: int) -> int:
        """Which boundary of a model's residual stream a place is."""
        return (self.joined.dense if side == "dense" else self.joined.sparse)[place]

    def streams(self, side: Side, input_ids: Int[Tensor, "B T"]) -> list[Float[Tensor, "B T D"]]:
        """A model's residual stream at all places."""
        found = residual_streams(self.model(side), input_ids)
        return [found[self.boundary(side, place)] for place in range(self.places)]

    def crossed(self, place: int, x: Float[Tensor, "B T D"], to: Side) -> Float[Tensor, "B T other"]:
        """The residual stream of one model at a place as that of the other."""
        return self.maps.encode(place, x) if to == "sparse" else self.maps.decode(place, x)

    def hybrid(self, pattern: str) -> Callable[[Int[Tensor, "B T"]], Float[Tensor, "B T V"]]:
        """A pass that switches between the models: logits of the next token from token ids.

        pattern: a letter for what lies between two places (a sublayer, where all boundaries are joined), d or s; or two
        more, for what embeds and what reads out, which else are done by the models of the first and the last. Raises
        UserError for any other pattern.
        """
        sides = self.sides(pattern)

        def run(input_ids: Tensor) -> Tensor:
            positions = {side: self.model(side).embed(input_ids)[1] for side in set(sides)}

            def walked(side: Side, x: Tensor, start: int, stop: int) -> Tensor:
                boundaries = self.boundary(side, start), self.boundary(side, stop)
                return self.model(side).between(x, *boundaries, positions[side])

            x, start = self.model(sides[0]).embed(input_ids)[0], 0
            for place in range(self.places):
                here, following = sides[place], sides[place + 1]
                if here != following:
                    x, start = self.crossed(place, walked(here, x, start, place), following), place
            last = sides[-1]
            return self.model(last).read_out(walked(last, x, start, self.places - 1), input_ids)

        return run

    def sides(self, pattern: str) -> list[Side]:
        """Which model embeds, computes what lies between the places, and reads out: one more than there are places."""
        between = self.places - 1
        unknown = sorted(set(pattern) - set(LETTERS))
        if unknown or len(pattern) not in (between, between + 2):
            raise UserError(
                f"{pattern[:80]!r} is no pattern for this bridge: give {between} letters d and s, one for what lies "
                f"between two places, or {between + 2}, the embedding first and the unembedding last"
            )
        whole = pattern if len(pattern) == between + 2 else pattern[0] + pattern + pattern[-1]
        return [LETTERS[letter] for letter in whole]

    def single_switch(self, place: int, to: Side) -> str:
        """The pattern that begins in the other model and goes over to this one at a place, for good."""
        first, then = ("d", "s") if to == "sparse" else ("s", "d")
        return first * (place + 1) + then * (self.places - place)


def require_bridgeable(dense: SparseTransformer, sparse: SparseTransformer) -> None:
    """Raise UserError for two models that no bridge can join."""
    theirs, ours = dense.config.vocab_size, sparse.config.vocab_size
    if theirs != ours:
        raise UserError(f"a bridge joins models of one vocab_size: the dense one has {theirs}, the sparse one {ours}")
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
