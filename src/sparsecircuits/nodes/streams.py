"""The residual stream of a set of nodes, of which the compact forward pass keeps as little as the set needs.

Narrow: a few columns that vary, beside what is the token's alone. Dense: all of it, for large sets, and for models
whose stream is more than a sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.kernels.rms_norm import EPSILON
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.tasks import PairBatch

Once = Callable[[object, Callable[[], Tensor]], Tensor]
"""(what, compute) -> what compute() gives, or gave before."""


class Prompts:
    """Some prompts on the model's device. place: where each token is among those that a narrow stream has rows of."""

    def __init__(self, model: SparseTransformer, batch: PairBatch) -> None:
        self._model = model
        self.tokens = torch.from_numpy(batch.tokens).to(model.device)
        self.last = torch.from_numpy(batch.last).to(model.device)
        self.last_token = rows_at(self.tokens, self.last)[:, 0]
        model.check_ids(self.tokens)
        self._dense: DenseStream | None = None

    @property
    def length(self) -> int:
        """Tokens of the longest prompt."""
        return self.tokens.shape[1]

    def dense(self) -> "DenseStream":
        """The stream before the first layer."""
        if self._dense is None:
            x, positions = self._model.embed(self.tokens)
            self._dense = DenseStream(self._model, x, positions)
        return self._dense


@dataclass(frozen=True)
class DenseStream:
    """x: [n, S, D]. positions: the raw position channels of these positions, where layers read them beside it."""

    model: SparseTransformer
    x: Float[Tensor, "n S D"]
    positions: Tensor | None

    def at(self, place: Int[Tensor, " n"]) -> "DenseStream":
        """One position of each prompt."""
        positions = None if self.positions is None else self.positions[place].unsqueeze(1)
        return replace(self, x=rows_at(self.x, place), positions=positions)

    def read(self, layer: int, half: str, channels: Int[Tensor, " kept"], once: Once) -> Float[Tensor, "n S kept"]:
        """Some channels of what half a layer reads. once: remembers all of them."""
        block = self.model.block(layer)
        part, read = (block.attn, block.attention_read) if half == "attn" else (block.mlp, block.mlp_read)
        return once("read", lambda: part.act_in(read(self.x, self.positions)))[..., channels]

    def entered(self, layer: int, half: str) -> "DenseStream":
        """What half a layer finds."""
        return replace(self, x=self.model.block(layer).resid_in(self.x)) if half == "attn" else self

    def plus(
        self, layer: int, half: str, frozen: Float[Tensor, " D"], y: Float[Tensor, "*prompts kept"], channels: Tensor
    ) -> "DenseStream":
        """With what half a layer writes: y at the kept channels, elsewhere constants."""
        block = self.model.block(layer)
        add = block.add_attention if half == "attn" else block.add_mlp
        return replace(self, x=add(self.x, with_channels(frozen, y, channels) if len(channels) else frozen))

    def final(self, channels: Int[Tensor, " kept"]) -> Float[Tensor, "n S kept"]:
        """Some channels at the end."""
        whole: Tensor = self.model.final_resid(self.x)
        return whole[..., channels]


@dataclass(frozen=True)
class Base:
    """What of a narrow stream is the token's alone. rows: [U, D], embeddings of the tokens that occur; constant [D]:
    what was written since that does not vary."""

    model: SparseTransformer
    rows: Float[Tensor, "U D"]
    constant: Float[Tensor, " D"]

    def column(self, channels: Tensor) -> Float[Tensor, "U C"]:
        """Values at some channels of which nothing varies."""
        return self.rows[:, channels] + self.constant[channels]


def takes_narrow(model: SparseTransformer) -> bool:
    """Whether a model's stream may be narrow: a plain sum from the token on, that RMSNorm reads."""
    config = model.config
    plain = config.residual_activation == "identity" and all(
        config.abstopk_k(site) is None for site in ("resid_mid", "resid_out")
    )
    return plain and config.norm == "rms" and config.positions != "added"


@dataclass(frozen=True)
class NarrowStream:
    """x: [n, S, W], at the channels that vary; all others are `base` at the token. place: each position's token among
    the rows of `base`, [n, S]. beside: raw position channels as in `DenseStream`."""

    base: Base
    channels: Int[Tensor, " W"]
    x: Float[Tensor, "n S W"]
    place: Int[Tensor, "n S"]
    beside: Tensor | None

    @classmethod
    def start(cls, base: Base, place: Int[Tensor, "n S"]) -> "NarrowStream":
        """Before the first layer."""
        config, none = base.model.config, place.new_zeros(0)
        beside = None
        if config.concatenates_positions and base.model.wpe is not None:
            beside = base.model.wpe.weight[: place.shape[1]]
        return cls(base, none, base.rows.new_zeros(*place.shape, 0), place, beside)

    def at(self, place: Int[Tensor, " n"]) -> "NarrowStream":
        """One position of each prompt."""
        beside = None if self.beside is None else self.beside[place].unsqueeze(1)
        return replace(self, x=rows_at(self.x, place), place=rows_at(self.place, place), beside=beside)

    def entered(self, _layer: int, _half: str) -> "NarrowStream":
        """What half a layer finds."""
        return self

    def column(self, channels: Int[Tensor, " C"]) -> Float[Tensor, "n S C"]:
        """The stream at some channels."""
        where = torch.searchsorted(self.channels, channels).clamp(max=max(0, len(self.channels) - 1))
        varies = (
            self.channels[where] == channels if len(self.channels) else torch.zeros_like(channels, dtype=torch.bool)
        )
        found = F.embedding(self.place, self.base.column(channels))
        if varies.any():
            found[..., varies] = self.x[..., where[varies]]
        return found

    def plus(
        self, _layer: int, _half: str, frozen: Float[Tensor, " D"], y: Float[Tensor, "*prompts kept"], channels: Tensor
    ) -> "NarrowStream":
        """With what half a layer writes: y at the kept channels, elsewhere constants."""
        still = frozen.clone()
        still[channels] = 0
        new = torch.cat((self.channels, channels)).unique()
        x = self.column(new) + still[new]
        x[..., torch.searchsorted(new, channels)] += y
        return replace(self, base=replace(self.base, constant=self.base.constant + still), channels=new, x=x)

    def read(self, layer: int, half: str, channels: Int[Tensor, " kept"], once: Once) -> Float[Tensor, "n S kept"]:
        """Some channels of what half a layer reads. once: remembers what is the tokens' alone.

        Whether AbsTopK lets a channel through is told by how many are larger: those that vary and position channels
        are counted, and of the rest, sorted for each token, one is looked at. The norm's scale is in all of the
        stream's channels, so it is left out of these comparisons.
        """
        block, width = self.base.model.block(layer), self.base.rows.shape[1]
        norm, position_norm, site = (
            (block.ln_1, block.ln_p1, block.attn.act_in)
            if half == "attn"
            else (block.ln_2, block.ln_p2, block.mlp.act_in)
        )
        gains, k = norm.weight, site.k
        assert isinstance(gains, Tensor)
        squares = once("squares", self._squares)
        scale = (
            ((F.embedding(self.place, squares[:, None])[..., 0] + self.x.square().sum(dim=-1)) / width + EPSILON)
            .rsqrt()
            .unsqueeze(-1)
        )
        of_stream = channels[channels < width]
        sizes = self.column(of_stream) * gains[of_stream]
        extra, beside = sizes[..., :0], None
        if position_norm is not None and self.beside is not None:
            beside = position_norm(self.beside)
            extra = beside[..., channels[channels >= width] - width].expand(*sizes.shape[:-1], -1)
        values = torch.cat((sizes * scale, extra), dim=-1)
        if k is None or k >= width + (0 if beside is None else beside.shape[-1]):
            return values
        if k == 0:
            return torch.zeros_like(values)
        sizes = torch.cat((sizes, extra / scale), dim=-1).abs()
        larger = torch.zeros_like(sizes, dtype=torch.int64)
        for rival in (self.x * gains[self.channels]).abs().unbind(dim=-1):
            larger += rival.unsqueeze(-1) > sizes
        if beside is not None:
            larger += larger_beside(beside, values.abs())
        strongest = once("strongest", lambda: self._strongest(gains, k))
        last_place = k - 1 - larger
        bar = strongest.flatten()[self.place.unsqueeze(-1) * k + last_place.clamp(min=0)]
        return values * ((last_place >= 0) & (bar <= sizes))

    def _squares(self) -> Float[Tensor, " U"]:
        """Sums of squares of what does not vary."""
        rows = self.base.rows + self.base.constant
        rows[:, self.channels] = 0
        return rows.square().sum(dim=1)

    def _strongest(self, gains: Tensor, k: int) -> Float[Tensor, "U k"]:
        """The k largest magnitudes of what does not vary, from the largest on; -1 where there are not so many."""
        sizes = ((self.base.rows + self.base.constant) * gains).abs()
        sizes[:, self.channels] = -1
        found = sizes.topk(min(k, sizes.shape[1]), dim=1).values
        return F.pad(found, (0, k - found.shape[1]), value=-1.0)

    def final(self, channels: Int[Tensor, " kept"]) -> Float[Tensor, "n S kept"]:
        """Some channels at the end."""
        return self.column(channels)


def larger_beside(beside: Float[Tensor, "... S P"], sizes: Float[Tensor, "n S C"]) -> Int[Tensor, "n S C"]:
    """How many position channels are larger than each size at its position. beside: [S, P], or [n, 1, P]."""
    table = beside.abs().sort(dim=-1).values.contiguous()
    if table.dim() == 2:
        wanted = sizes.transpose(0, 1).contiguous()
        found = torch.searchsorted(table, wanted.reshape(len(table), -1), right=True).view(wanted.shape).transpose(0, 1)
    else:
        found = torch.searchsorted(table, sizes.contiguous(), right=True)
    return table.shape[-1] - found


Stream = DenseStream | NarrowStream


def with_channels(frozen: Float[Tensor, " width"], x: Float[Tensor, "... kept"], place: Tensor) -> Tensor:
    """Frozen values [..., width], but x at some places."""
    if len(place) == len(frozen):
        return x
    out = frozen.to(x.dtype).expand(*x.shape[:-1], -1).clone()
    out[..., place] = x
    return out
