"""A weight-sparse transformer (Gao et al. 2025) as a Hugging Face model.

This file travels with exported models: it needs torch and transformers alone. Modules and parameters have the
names of the sparsecircuits package, and every place where circuit nodes live is a `Site` module, so that
forward hooks on `blocks.0.mlp.post_act` and the like see what papers call those activations.

Shapes: B batch, T sequence, S keys (cached and new), V vocabulary, D d_model, H heads, K d_head, A = H K.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_sparsecircuits import CACHE_NAMES, SparseCircuitsConfig

# What the installed transformers calls the cache in an output: `cache` from 5.24 on, `past_key_values` before.
CACHE_NAME = next(name for name in CACHE_NAMES if name in CausalLMOutputWithPast.__dataclass_fields__)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}

EPSILON = torch.finfo(torch.float32).eps  # of RMSNorm, in every type


def sinusoidal_table(n_ctx: int, width: int) -> Tensor:
    """[n_ctx, width]: fixed sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017)."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(n_ctx).unsqueeze(1) * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[:, :width]


class Site(nn.Module):
    """Keeps the k largest magnitudes of the last dimension (the lower index wins a tie); k None passes all.

    freezes: the number of channels, where some may be constants: those whose gate is 0.
    """

    is_site = True
    gate: Tensor | None
    frozen: Tensor | None

    def __init__(self, k: int | None = None, freezes: int | None = None) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("gate", None if freezes is None else torch.ones(freezes))
        self.register_buffer("frozen", None if freezes is None else torch.zeros(freezes))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width], same shape out."""
        x = self._largest(x)
        if self.gate is None or self.frozen is None:
            return x
        gate = self.gate.to(x.dtype)
        return x * gate + self.frozen.to(x.dtype) * (1 - gate)

    def _largest(self, x: Tensor) -> Tensor:
        if self.k is None or self.k >= x.shape[-1]:
            return x
        order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., : self.k]
        kept = torch.zeros_like(x, dtype=torch.bool).scatter_(-1, order, True)
        return torch.where(kept, x, torch.zeros_like(x))


def _node_site(config: SparseCircuitsConfig, site: str, width: int) -> Site:
    return Site(config.abstopk_k(site, width), config.freezes(width))


def _norm(width: int, kind: str, bias: bool) -> nn.Module:
    return nn.RMSNorm(width, eps=EPSILON) if kind == "rms" else nn.LayerNorm(width, bias=bias)


class Attention(nn.Module):
    """Multi-head causal attention, AbsTopK over all heads' channels together, optional sink and offsets per head."""

    def __init__(self, config: SparseCircuitsConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.d_head = layer, config.n_head, config.d_head
        width = config.n_head * config.d_head
        self.c_attn = nn.Linear(config.d_in, 3 * width, bias=config.bias)
        self.c_proj = nn.Linear(width, config.d_model, bias=config.bias)
        self.c_proj.writes_residual = True  # type: ignore[assignment]
        self.sink_logit = nn.Parameter(torch.zeros(config.n_head)) if config.sink else None
        self.offset_logit = nn.Parameter(torch.zeros(config.n_head, config.offsets)) if config.offsets else None
        self.act_in = _node_site(config, "attn.act_in", config.d_in)
        self.q, self.k, self.v = (_node_site(config, f"attn.{name}", width) for name in "qkv")
        self.y = Site()
        self.resid_delta = _node_site(config, "attn.resid_delta", config.d_model)

    def forward(self, x: Tensor, allowed: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """x: [B, T, Din], allowed: [B, 1, T, S] -> (write to the residual stream [B, T, D], pattern [B, H, T, S])."""
        q, k, v = self.c_attn(self.act_in(x)).chunk(3, dim=-1)
        q, k, v = (
            x.unflatten(-1, (self.n_head, self.d_head)).transpose(1, 2) for x in (self.q(q), self.k(k), self.v(v))
        )
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.d_head)
        if self.offset_logit is not None:
            scores = scores + self._by_offset(*scores.shape[-2:]).to(scores.dtype)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        if self.sink_logit is not None:  # one more column in the denominator, whose value is zero
            sink = self.sink_logit.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat((scores, sink), dim=-1)
        pattern = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)[..., : k.shape[-2]]
        y = (pattern @ v).transpose(1, 2).flatten(-2)
        return self.resid_delta(self.c_proj(self.y(y))), pattern

    def _by_offset(self, queries: int, keys: int) -> Tensor:
        """[H, T, S]: what is added to each score, by how many tokens before the query the key is."""
        assert isinstance(self.offset_logit, Tensor)
        device, reach = self.offset_logit.device, self.offset_logit.shape[1]
        back = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
        return F.pad(self.offset_logit, (0, 1))[:, back.where(back >= 0, reach).clamp(max=reach)]


class MLP(nn.Module):
    """Two linear maps around an activation function, AbsTopK on the neurons."""

    def __init__(self, config: SparseCircuitsConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_in, config.d_mlp, bias=config.bias)
        self.c_proj = nn.Linear(config.d_mlp, config.d_model, bias=config.bias)
        self.c_proj.writes_residual = True  # type: ignore[assignment]
        self.activation = ACTIVATIONS[config.activation]
        self.act_in = _node_site(config, "mlp.act_in", config.d_in)
        self.post_act = _node_site(config, "mlp.post_act", config.d_mlp)
        self.resid_delta = _node_site(config, "mlp.resid_delta", config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, Din] -> write to the residual stream [B, T, D]."""
        return self.resid_delta(self.c_proj(self.post_act(self.activation(self.c_fc(self.act_in(x))))))


class Block(nn.Module):
    """Attention, then MLP; each reads the normed residual stream and adds its write to it."""

    def __init__(self, config: SparseCircuitsConfig, layer: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (_norm(config.d_model, config.norm, config.norm_bias) for _ in range(2))
        self.ln_p1 = self.ln_p2 = None
        if config.concatenates_positions:
            self.ln_p1, self.ln_p2 = (
                _norm(config.d_in - config.d_model, config.position_norm, config.norm_bias) for _ in range(2)
            )
        self.attn, self.mlp = Attention(config, layer), MLP(config)
        self.residual_relu = config.residual_activation == "relu"
        self.resid_in, self.resid_mid = Site(), Site(config.abstopk_k("resid_mid", config.d_model))
        self.resid_out = Site(config.abstopk_k("resid_out", config.d_model))

    def forward(
        self, x: Tensor, positions: Tensor | None, allowed: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Tensor]:
        """x: [B, T, D]; positions: [B, T, P] where they are concatenated -> (x, attention pattern)."""
        x = self.resid_in(x)
        delta, pattern = self.attn(_read(x, self.ln_1, self.ln_p1, positions), allowed, cache)
        x = x + delta
        x = self.resid_mid(x.relu() if self.residual_relu else x)
        x = x + self.mlp(_read(x, self.ln_2, self.ln_p2, positions))
        return self.resid_out(x.relu() if self.residual_relu else x), pattern


def _read(x: Tensor, norm: nn.Module, position_norm: nn.Module | None, positions: Tensor | None) -> Tensor:
    read = norm(x)
    if position_norm is None or positions is None:
        return read
    beside = position_norm(positions).to(read.dtype).expand(*read.shape[:-1], -1)
    return torch.cat((read, beside), dim=-1)


class SparseCircuitsForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model. Accepts left- or right-padded batches with an `attention_mask`."""

    config_class = SparseCircuitsConfig
    base_model_prefix = ""
    _no_split_modules = ["Block"]  # noqa: RUF012 (the base class's way)
    _tied_weights_keys = {"lm_head.weight": "wte.weight"}  # noqa: RUF012
    supports_gradient_checkpointing = False

    def __init__(self, config: SparseCircuitsConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.d_model)
        width = config.d_in - config.d_model if config.concatenates_positions else config.d_model
        self.wpe = nn.Embedding(config.n_ctx, width) if config.positions != "none" else None
        if self.wpe is not None and config.positions == "concat_sinusoidal":
            self.wpe.weight.requires_grad_(False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = _norm(config.d_model, config.norm, config.norm_bias)
        self.final_resid = Site(freezes=config.freezes(config.d_model))
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.logit_bias = nn.Parameter(torch.zeros(config.vocab_size), requires_grad=config.bias)
        self.bigram = None
        if config.bigram != "none":
            self.bigram = nn.Embedding(config.vocab_size, config.vocab_size)
            self.bigram.weight.requires_grad_(config.bigram == "learned")
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """N(0, 0.02); residual writes 0.02/√(2L); biases, sinks and offsets 0; bigram table U[0, 0.02)."""
        if module is self.bigram:
            nn.init.uniform_(module.weight, 0.0, 0.02)
        elif module is self.wpe and self.config.positions == "concat_sinusoidal":
            if module.weight.device.type != "meta" and not getattr(module.weight, "_is_hf_initialized", False):
                module.weight.data.copy_(sinusoidal_table(*module.weight.shape))
        elif isinstance(module, nn.Linear | nn.Embedding):
            writes = getattr(module, "writes_residual", False)
            nn.init.normal_(module.weight, 0.0, 0.02 / math.sqrt(2 * self.config.n_layer) if writes else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RMSNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)
        elif isinstance(module, Attention) and isinstance(module.sink_logit, Tensor):
            nn.init.zeros_(module.sink_logit)
        if isinstance(module, Attention) and isinstance(module.offset_logit, Tensor):
            nn.init.zeros_(module.offset_logit)
        elif module is self:
            nn.init.zeros_(self.logit_bias)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.wte = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the unembedding."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits of the next token.

        input_ids: [B, T]. attention_mask: [B, S], 0 for padding, over cached and new tokens. cache: keys and
        values of earlier tokens, or past_key_values, as transformers before 5.24 call it; the output has it
        under the installed version's name. labels: [B, T], shifted inside, -100 is ignored. hidden_states are
        the residual stream before each block and, last, what the unembedding reads. logits_to_keep: only the
        last so many positions; 0 is all. Raises ValueError for more tokens than the context.
        """
        config = self.config
        use_cache = config.use_cache if use_cache is None else use_cache
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = True if return_dict is None else return_dict
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=config)
        past = cache.get_seq_length() if cache is not None else 0
        allowed = _allowed(attention_mask, input_ids.shape[0], past, input_ids.shape[1], input_ids.device)
        position_ids = self._positions(input_ids, attention_mask, position_ids, past)

        x, beside = self.wte(input_ids), None
        if self.wpe is not None:
            rows = self.wpe(position_ids)
            if config.concatenates_positions:
                beside = rows
            else:
                x = x + rows
        hidden_states, attentions = [], []
        for block in self.blocks:
            hidden_states.append(x)
            x, pattern = block(x, beside, allowed, cache)
            attentions.append(pattern)
        x = self.ln_f(self.final_resid(x))
        hidden_states.append(x)

        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, keep]) + self.logit_bias.to(x.dtype)
        if self.bigram is not None:
            logits = logits + self.bigram(input_ids[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=config.vocab_size, **kwargs)
        returned: dict[str, Any] = {CACHE_NAME: cache if use_cache else None}
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **returned,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Generate as transformers does. Raises ValueError at once, not when the context is full, if the longest
        prompt (without padding) and max_new_tokens do not fit it."""
        ids = kwargs.get("input_ids") if inputs is None else inputs
        fresh, mask = kwargs.get("max_new_tokens"), kwargs.get("attention_mask")
        if isinstance(ids, Tensor) and isinstance(fresh, int):
            prompt = ids.shape[1] if mask is None else int(mask.sum(dim=-1).max())
            if prompt + fresh - 1 > self.config.n_ctx:  # the last new token is not read
                raise ValueError(
                    f"{prompt} tokens and {fresh} new ones do not fit the model's context of {self.config.n_ctx}: "
                    "shorten the prompt or max_new_tokens"
                )
        return super().generate(inputs, *args, **kwargs)

    def _positions(self, ids: Tensor, mask: Tensor | None, position_ids: Tensor | None, past: int) -> Tensor:
        """[B or 1, T]: each token's place among those that are not padding."""
        if position_ids is None:
            if mask is not None and mask.dim() == 2:
                position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            else:
                position_ids = torch.arange(past, past + ids.shape[1], device=ids.device).unsqueeze(0)
        if not torch.compiler.is_compiling() and int(position_ids.max()) >= self.config.n_ctx:
            raise ValueError(
                f"{int(position_ids.max()) + 1} tokens do not fit the model's context of {self.config.n_ctx}: "
                "shorten the prompt or max_new_tokens"
            )
        return position_ids


def _allowed(mask: Tensor | None, batch: int, past: int, fresh: int, device: torch.device) -> Tensor:
    """[B, 1, T, S]: which keys a query may see: the earlier ones and itself, but no padding."""
    queries = torch.arange(past, past + fresh, device=device).view(1, 1, -1, 1)
    keys = torch.arange(past + fresh, device=device).view(1, 1, 1, -1)
    allowed = (keys <= queries).expand(batch, 1, fresh, past + fresh)
    if mask is None:
        return allowed
    if mask.dim() != 2 or mask.shape[-1] != past + fresh:
        raise ValueError(f"attention_mask must be [batch, {past + fresh}] (all tokens so far), got {tuple(mask.shape)}")
    return allowed & mask.bool().view(batch, 1, 1, -1)
