"""The transformer of Gao et al. 2025: GPT-2 style, RMSNorm, AbsTopK at its sites, optional sinks.

Shapes: B batch, T sequence, S some positions of it (all, or one of each sequence), V vocabulary, D d_model, P raw
position channels, Din = D + P what a block reads, H heads, K d_head, A = H K, M d_mlp.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparsecircuits.errors import UserError
from sparsecircuits.kernels import (
    Embedding,
    Held,
    Linear,
    RMSNorm,
    attention_at,
    attention_pattern,
    attention_reference,
    causal_attention,
    held_attention,
    held_mlp,
    linear_cross_entropy,
    split_heads,
)
from sparsecircuits.kernels.held_attention import takes as attention_takes
from sparsecircuits.kernels.held_mlp import takes as mlp_takes
from sparsecircuits.models.config import Activation, ModelConfig
from sparsecircuits.models.hooks import is_watched
from sparsecircuits.models.sites import FINAL_SITE, Site

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer


class Keeps(Protocol):
    """What attention gives its keys and values to."""

    @property
    def length(self) -> int:
        """Tokens seen before this pass."""
        ...

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take a layer's keys and values [B, T, A] of this pass; return those of all tokens so far."""
        ...


@dataclass
class KVCache:
    """Keys and values of the tokens seen so far, per layer: each [B, T_seen, A]."""

    keys: list[Tensor | None] = field(default_factory=list)
    values: list[Tensor | None] = field(default_factory=list)

    @classmethod
    def empty(cls, n_layer: int) -> "KVCache":
        """A cache for a fresh sequence."""
        return cls([None] * n_layer, [None] * n_layer)

    @property
    def length(self) -> int:
        """Tokens seen."""
        first = self.keys[0] if self.keys else None
        return 0 if first is None else first.shape[1]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append this call's keys and values of a layer and return all of them."""
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None:
            k, v = torch.cat((old_k, k), dim=1), torch.cat((old_v, v), dim=1)
        self.keys[layer], self.values[layer] = k, v
        return k, v


def _node_site(config: ModelConfig, site: str, activation: Activation | None = None) -> Site:
    return Site(config.abstopk_k(site), activation, config.freezes(site))


class Attention(nn.Module):
    """Multi-head causal attention with AbsTopK on q, k, v (over all heads' channels together) and on its
    write to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.heads
        self.c_attn = Linear(config.d_in, 3 * config.attn_width, bias=config.bias)
        self.c_proj = Linear(config.attn_width, config.d_model, bias=config.bias)
        self.sink_logit = nn.Parameter(torch.zeros(config.heads)) if config.sink else None
        self.offset_logit = nn.Parameter(torch.zeros(config.heads, config.offsets)) if config.offsets else None
        self.act_in = _node_site(config, "attn.act_in")
        self.q = _node_site(config, "attn.q")
        self.k = _node_site(config, "attn.k")
        self.v = _node_site(config, "attn.v")
        self.y = Site()
        self.resid_delta = _node_site(config, "attn.resid_delta")

    def forward(
        self, x: Float[Tensor, "B T Din"], cache: Keeps | None = None, layer: int = 0
    ) -> Float[Tensor, "B T D"]:
        """The block's write to the residual stream. layer: where the cache holds this one's keys and values."""
        x = self.act_in(x)
        held = held_pair(self.c_attn, self.c_proj)
        if held is not None and cache is None and self._fuses(x):
            attn, proj = held
            return self.resid_delta(
                held_attention(
                    *(x, attn, self.c_attn.bias, proj, self.c_proj.bias, self.sink_logit, self.n_head, self._kept),
                    offsets=self.offset_logit,
                )
            )
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = self.q(q), self.k(k), self.v(v)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        # The kernel is for sequences from their beginning.
        attend = causal_attention if k.shape[1] == q.shape[1] else attention_reference
        y = attend(q, k, v, self.n_head, self.sink_logit, self.offset_logit)
        return self.resid_delta(self.c_proj(self.y(y)))

    def at(
        self, x: Float[Tensor, "B T Din"], place: Int[Tensor, " B"], cache: Keeps | None = None, layer: int = 0
    ) -> Float[Tensor, "B 1 D"]:
        """The write at one position of each sequence: keys and values of all positions, the rest of these alone. cache:
        an empty one, which is given them."""
        q, k, v = self.c_attn(self.act_in(x)).chunk(3, dim=-1)
        q, k, v = self.q(rows_at(q, place)), self.k(k), self.v(v)
        if cache is not None:
            cache.extend(layer, k, v)
        y = attention_at(q, k, v, self.n_head, self.sink_logit, place, self.offset_logit)
        return self.resid_delta(self.c_proj(self.y(y)))

    def pattern(
        self, q: Float[Tensor, "B Tq A"], k: Float[Tensor, "B Tk A"], heads: slice = slice(None)
    ) -> Float[Tensor, "B H Tq Tk"]:
        """How some heads, by default all, spread their attention, from what the sites q and k gave."""
        queries, keys = (split_heads(x, self.n_head)[:, heads] for x in (q, k))
        sink, offsets = (None if x is None else x[heads] for x in (self.sink_logit, self.offset_logit))
        return attention_pattern(queries, keys, sink, offsets)

    @property
    def _kept(self) -> tuple[int | None, int | None, int | None]:
        return self.q.k, self.k.k, self.v.k

    def _fuses(self, x: Tensor) -> bool:
        """Whether one operator can stand for the layers and all between them: nobody looks at what is there."""
        parts = (self.c_attn, self.q, self.k, self.v, self.y, self.c_proj)
        if self.q.gate is not None:  # some channels may be constants
            return False
        return attention_takes(x, self.c_proj.in_features, self._kept) and not any(map(is_watched, parts))


def held_pair(first: nn.Module, second: nn.Module) -> tuple[Held, Held] | None:
    """The nonzeros that two layers compute with, if both do; others than `Linear` may stand in their place."""
    one, other = (getattr(layer, "held", None) for layer in (first, second))
    return None if one is None or other is None else (one, other)


class MLP(nn.Module):
    """Two linear maps around an activation function (in the site `post_act`), AbsTopK on the neurons."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.d_in, config.mlp_width, bias=config.bias)
        self.c_proj = Linear(config.mlp_width, config.d_model, bias=config.bias)
        self.act_in = _node_site(config, "mlp.act_in")
        self.post_act = _node_site(config, "mlp.post_act", config.activation)
        self.resid_delta = _node_site(config, "mlp.resid_delta")

    def forward(self, x: Float[Tensor, "B T Din"]) -> Float[Tensor, "B T D"]:
        """The block's write to the residual stream."""
        x = self.act_in(x)
        held = held_pair(self.c_fc, self.c_proj)
        if held is None or not self._fuses(x, held[0].pattern.shape[0]):
            return self.resid_delta(self.c_proj(self.post_act(self.c_fc(x))))
        fc, proj = held
        return self.resid_delta(held_mlp(x, fc, self.c_fc.bias, proj, self.c_proj.bias, self.post_act.k))

    def _fuses(self, x: Tensor, units: int) -> bool:
        """Whether one operator can stand for `post_act` and the layers around it: nobody looks at what is between."""
        parts = (self.c_fc, self.post_act, self.c_proj)
        activation, k = self.post_act.activation, self.post_act.k
        if self.post_act.gate is not None:  # some neurons may be constants
            return False
        return activation == "gelu" and mlp_takes(x, units, k) and not any(map(is_watched, parts))


def _norm(config: ModelConfig, width: int, kind: str) -> nn.Module:
    if kind == "rms":
        return RMSNorm(width)
    return nn.LayerNorm(width, bias=config.norm_bias)


class Block(nn.Module):
    """Attention, then MLP; each reads the normed residual stream and adds its write to it. Either half can run
    alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (_norm(config, config.d_model, config.norm) for _ in range(2))
        self.ln_p1 = self.ln_p2 = None
        if config.concatenates_positions and config.d_pos_emb:
            self.ln_p1, self.ln_p2 = (_norm(config, config.d_pos_emb, config.position_norm) for _ in range(2))
        self.attn, self.mlp = Attention(config), MLP(config)
        self.residual_relu = config.residual_activation == "relu"
        self.resid_in, self.resid_mid = Site(), Site(config.abstopk_k("resid_mid"))
        self.resid_out = Site(config.abstopk_k("resid_out"))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Float[Tensor, "T P"] | None = None,
        cache: Keeps | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """Both halves. positions: the raw position channels where they are concatenated, else None. layer: where
        the cache holds this block's keys and values."""
        return self.mlp_half(self.attention_half(x, positions, cache, layer), positions)

    def attention_half(
        self,
        x: Float[Tensor, "B T D"],
        positions: Float[Tensor, "T P"] | None = None,
        cache: Keeps | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B T D"]:
        """The residual stream after attention, from that before the layer."""
        x = self.resid_in(x)
        return self.add_attention(x, self.attn(self.attention_read(x, positions), cache, layer))

    def attention_half_at(
        self,
        x: Float[Tensor, "B T D"],
        place: Int[Tensor, " B"],
        positions: Float[Tensor, "T P"] | None = None,
        cache: Keeps | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B 1 D"]:
        """`attention_half` at one position of each sequence."""
        x = self.resid_in(x)
        write = self.attn.at(self.attention_read(x, positions), place, cache, layer)
        return self.add_attention(rows_at(x, place), write)

    def mlp_half(
        self, x: Float[Tensor, "B S D"], positions: Float[Tensor, "... P"] | None = None
    ) -> Float[Tensor, "B S D"]:
        """The residual stream after the layer, from that after attention; at any positions, each by itself."""
        return self.add_mlp(x, self.mlp(self.mlp_read(x, positions)))

    def attention_read(
        self, x: Float[Tensor, "B T D"], positions: Float[Tensor, "T P"] | None
    ) -> Float[Tensor, "B T Din"]:
        """What attention reads of the residual stream at `resid_in`."""
        return normed_read(x, self.ln_1, self.ln_p1, positions)

    def mlp_read(self, x: Float[Tensor, "B S D"], positions: Float[Tensor, "... P"] | None) -> Float[Tensor, "B S Din"]:
        """What the MLP reads of the residual stream at `resid_mid`."""
        return normed_read(x, self.ln_2, self.ln_p2, positions)

    def add_attention(self, x: Float[Tensor, "B S D"], write: Float[Tensor, "... D"]) -> Float[Tensor, "B S D"]:
        """The residual stream at `resid_mid`, from that at `resid_in` and what attention writes."""
        return self._added(x, write, self.resid_mid)

    def add_mlp(self, x: Float[Tensor, "B S D"], write: Float[Tensor, "... D"]) -> Float[Tensor, "B S D"]:
        """The residual stream at `resid_out`, from that at `resid_mid` and what the MLP writes."""
        return self._added(x, write, self.resid_out)

    def _added(self, x: Tensor, write: Tensor, site: Site) -> Tensor:
        x = x + write
        after: Tensor = site(x.relu() if self.residual_relu else x)
        return after


def normed_read(x: Tensor, norm: nn.Module, position_norm: nn.Module | None, positions: Tensor | None) -> Tensor:
    """What a block reads: the normed residual stream, and beside it the normed position channels, if any."""
    read = norm(x)
    if position_norm is None or positions is None:
        return read
    beside = position_norm(positions).to(read.dtype).expand(*read.shape[:-1], -1)
    return torch.cat((read, beside), dim=-1)


def rows_at(x: Shaped[Tensor, "B T *width"], place: Int[Tensor, " B"]) -> Shaped[Tensor, "B 1 *width"]:
    """One position of each sequence."""
    return x[torch.arange(x.shape[0], device=x.device), place].unsqueeze(1)


def sinusoidal_table(n_ctx: int, width: int) -> Float[Tensor, "n_ctx width"]:
    """Fixed sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017)."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(n_ctx).unsqueeze(1) * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[:, :width]


@dataclass(frozen=True)
class HeldRows:
    """The rows of a table that a training step touches, in place of the table."""

    rows: Float[Tensor, "held width"]
    places: Int[Tensor, " ids"]
    """Where each id's row is among them; ids without one have a place out of range."""


class SparseTransformer(nn.Module):
    """The model. `tokenizer` and `name` are attached by `load_model` and by training."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.d_model)
        width = config.d_pos_emb if config.concatenates_positions else config.d_model
        self.wpe = nn.Embedding(config.n_ctx, width or 0) if config.positions != "none" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = _norm(config, config.d_model, config.norm)
        self.final_resid = _node_site(config, FINAL_SITE)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_unembed:
            self.lm_head.weight = self.wte.weight
        self.logit_bias = nn.Parameter(torch.zeros(config.vocab_size), requires_grad=config.bias)
        self.bigram: nn.Embedding | None = None
        if config.bigram != "none":
            self.bigram = nn.Embedding(config.vocab_size, config.vocab_size)
            self.bigram.weight.requires_grad_(config.bigram == "learned")
        self.held_bigram: HeldRows | None = None
        self.checkpoint_activations = False  # compute a layer again in backward instead of keeping what it made
        self.tokenizer: Tokenizer | None = None
        self.name = "model"
        self.corpus: str | None = None  # what it was trained on, as `--data` names it
        self.folder: Path | None = None  # where it was loaded from
        if self.wpe is not None and config.positions == "concat_sinusoidal":
            self.wpe.weight.requires_grad_(False)
        if not self.logit_bias.is_meta:  # there is nothing to fill
            self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """N(0, 0.02); residual writes 0.02/√(2L); biases, sinks and offsets 0; bigram table U[0, 0.02)."""
        for module_name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                write = module_name.endswith("c_proj")
                module.weight.normal_(0.0, 0.02 / math.sqrt(2 * self.config.n_layer) if write else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        if self.bigram is not None:
            self.bigram.weight.uniform_(0.0, 0.02)
        if self.wpe is not None and self.config.positions == "concat_sinusoidal":
            self.wpe.weight.copy_(sinusoidal_table(*self.wpe.weight.shape))

    def block(self, layer: int) -> Block:
        """One layer."""
        block = self.blocks[layer]
        assert isinstance(block, Block)
        return block

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_bias.device

    def empty_cache(self, batch: int = 1) -> KVCache:
        """A cache for fresh sequences, of any batch."""
        return KVCache.empty(self.config.n_layer)

    def forward(self, input_ids: Int[Tensor, "B T"], cache: Keeps | None = None) -> Float[Tensor, "B T V"]:
        """Logits of the next token at each position.

        cache: continue a sequence whose earlier tokens it holds. Raises UserError for more than n_ctx tokens or an
        id outside the vocabulary.
        """
        return self.unembed(self.final_hidden(input_ids, cache), input_ids)

    def last_logits(
        self, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], cache: Keeps | None = None
    ) -> Float[Tensor, "B V"]:
        """`forward` at one position of each sequence: only these rows are unembedded."""
        hidden = self.final_hidden(input_ids, cache)
        return self.unembed(rows_at(hidden, last), rows_at(input_ids, last))[:, 0]

    def final_hidden(self, input_ids: Int[Tensor, "B T"], cache: Keeps | None = None) -> Float[Tensor, "B T D"]:
        """What the unembedding reads: the normed residual stream after the last layer."""
        x, positions = self.embed(input_ids, cache.length if cache is not None else 0)
        return self.final_norm(self.between(x, 0, self.last_boundary, positions, cache))

    def narrow_hidden(
        self, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], cache: Keeps | None = None
    ) -> Float[Tensor, "B 1 D"]:
        """`final_hidden` at one position of each sequence; the last layer is computed, from its queries on, at these
        alone. cache: an empty one."""
        x, positions = self.embed(input_ids)
        layer = self.config.n_layer - 1
        x = self.between(x, 0, 2 * layer, positions, cache)
        x = self.block(layer).attention_half_at(x, last, positions, cache, layer)
        return self.final_norm(
            self.block(layer).mlp_half(x, None if positions is None else positions[last].unsqueeze(1))
        )

    @property
    def last_boundary(self) -> int:
        """The last of the 2L + 1 boundaries of the residual stream (see `between`)."""
        return 2 * self.config.n_layer

    def between(
        self,
        x: Float[Tensor, "B T D"],
        start: int,
        stop: int,
        positions: Float[Tensor, "T P"] | None = None,
        cache: Keeps | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The residual stream at boundary `stop`, from x, that at boundary `start`.

        Boundary 0 is what `embed` gives, 2i + 1 is after layer i's attention, 2i + 2 after its MLP; from the
        `last_boundary` on, `read_out` takes over. positions: those of `embed`. cache: keys and values of earlier
        tokens, in the layers that run. What torch.compile and FSDP make of whole layers has no part in half a one.
        Raises ValueError for boundaries that the model lacks, or out of order.
        """
        if not 0 <= start <= stop <= self.last_boundary:
            raise ValueError(f"no pass from boundary {start} to {stop}: they go from 0 to {self.last_boundary}")
        for layer, block in enumerate(self.blocks):
            attention, mlp = start <= 2 * layer < stop, start <= 2 * layer + 1 < stop
            if attention and mlp:
                x = self._checkpointed(block, x, positions, cache, layer)
            elif attention:
                x = self._checkpointed(self.block(layer).attention_half, x, positions, cache, layer)
            elif mlp:
                x = self._checkpointed(self.block(layer).mlp_half, x, positions)
        return x

    def _checkpointed(self, run: Callable[..., Tensor], x: Tensor, *others: object) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            again: Tensor = checkpoint(run, x, *others, use_reentrant=False, preserve_rng_state=False)
            return again
        return run(x, *others)

    def read_out(self, x: Float[Tensor, "B S D"], input_ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """Logits from the residual stream after the last layer, at any positions. input_ids: the tokens there, for
        the bigram table."""
        return self.unembed(self.final_norm(x), input_ids)

    def final_norm(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """What the unembedding reads of the residual stream after the last layer."""
        hidden: Tensor = self.ln_f(self.final_resid(x))
        return hidden

    def unembed(self, hidden: Float[Tensor, "B S D"], input_ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """Logits from what `final_norm` gives."""
        logits = F.linear(hidden, self.lm_head.weight, self.logit_bias.to(hidden.dtype))
        return logits if self.bigram is None else logits + self.bigram(input_ids)

    def embed(
        self, input_ids: Int[Tensor, "B T"], start: int = 0
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "T P"] | None]:
        """The residual stream before the first layer, and the raw position channels [T, P] where the blocks read
        them beside it. start: position of the first token."""
        self.check_ids(input_ids, start)
        x, positions = self.wte(input_ids), None
        if self.wpe is not None:
            row = self.wpe.weight[start : start + input_ids.shape[1]]
            if self.config.concatenates_positions:
                positions = row
            else:
                x = x + row
        return x, positions

    def loss(self, input_ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of the targets in nats, without ever holding all logits at once on a CPU."""
        hidden = self.final_hidden(input_ids).flatten(0, 1)
        table, ids = None if self.bigram is None else self.bigram.weight, input_ids.flatten()
        if self.held_bigram is not None:
            table, ids = self.held_bigram.rows, self.held_bigram.places[ids]
        return linear_cross_entropy(
            hidden, self.lm_head.weight, self.logit_bias, targets.flatten(), table, ids, self.lm_head.held
        )

    def check_ids(self, input_ids: Tensor, start: int = 0) -> None:
        """Raise UserError for token ids that the model cannot read. start: position of the first one."""
        if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
            kind = input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__
            raise UserError(f"input_ids must be a tensor of int64 or int32, got {kind}: torch.tensor(ids).long()")
        if input_ids.dim() != 2 or input_ids.shape[1] == 0:
            raise UserError(f"input_ids must be [batch, sequence], got shape {tuple(input_ids.shape)}")
        if start + input_ids.shape[1] > self.config.n_ctx:
            raise UserError(
                f"{start + input_ids.shape[1]} tokens do not fit the model's context of {self.config.n_ctx}: "
                "shorten the prompt"
            )
        if torch.compiler.is_compiling() or input_ids.is_cuda or input_ids.numel() == 0:
            return
        if int(input_ids.max()) >= self.config.vocab_size or int(input_ids.min()) < 0:
            raise UserError(f"input_ids hold an id outside 0..{self.config.vocab_size - 1}")


def sparse_matrices(model: SparseTransformer) -> dict[str, nn.Parameter]:
    """The matrices that weight sparsity is about, by name: all but the bigram table and those of positions."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and not name.startswith(("bigram", "wpe")) and not name.endswith("offset_logit")
    }


def count_parameters(model: SparseTransformer) -> tuple[int, int]:
    """(all, nonzero) entries of the sparse matrices: the paper's parameter count and L0."""
    matrices = sparse_matrices(model).values()
    return sum(p.numel() for p in matrices), sum(int(p.count_nonzero()) for p in matrices)
