"""The architecture of a weight-sparse transformer (Gao et al. 2025) as a Hugging Face config.

This file travels with exported models: it needs transformers alone.
"""

from typing import Any

from transformers import PretrainedConfig

# What versions of transformers call the keys and values of earlier tokens, the newest name first.
CACHE_NAMES = ("cache", "past_key_values")

# Where AbsTopK may act, by the paper's location names, and the module that it belongs to.
ABSTOPK_SITES = {
    "attn_in": "attn.act_in",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_out": "attn.resid_delta",
    "mlp_in": "mlp.act_in",
    "mlp_neuron": "mlp.post_act",
    "mlp_out": "mlp.resid_delta",
    "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_out",
}


class SparseCircuitsConfig(PretrainedConfig):
    """Config of `SparseCircuitsForCausalLM`.

    Args:
        vocab_size, n_ctx, n_layer, d_model, d_head: sizes; n_ctx is the longest sequence in tokens.
        n_head: heads; None: d_model / d_head. d_mlp: neurons of a layer; None: 4 d_model.
        norm: "rms" or "layer"; norm_bias: whether LayerNorm has one.
        activation: "gelu", "relu" or "gelu_tanh". residual_activation: "identity" or "relu".
        bias: whether linear maps have one.
        positions: "none", "added", "concat" or "concat_sinusoidal"; d_pos_emb: their width when concatenated;
            position_norm: their norm then.
        sink: a learned logit per head in the softmax denominator.
        offsets: number of latest keys with a learned number per head added to their scores; None: none.
        frozen_nodes: whether each node has a gate and the constant that it carries where that is 0.
        bigram: "none", "frozen" or "learned": a vocab x vocab table added to the logits.
        tied_unembed: whether the unembedding is the embedding.
        afrac: share of entries that AbsTopK keeps (None: no AbsTopK); abstopk: where it acts.
    """

    model_type = "sparsecircuits"
    keys_to_ignore_at_inference = list(CACHE_NAMES)  # noqa: RUF012 (the base class's way)
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "head_dim": "d_head",
        "intermediate_size": "d_mlp",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "max_position_embeddings": "n_ctx",
    }

    def __init__(
        self,
        vocab_size: int = 2048,
        n_ctx: int = 256,
        n_layer: int = 8,
        d_model: int = 2048,
        d_head: int = 16,
        n_head: int | None = None,
        d_mlp: int | None = None,
        norm: str = "rms",
        norm_bias: bool = True,
        activation: str = "gelu",
        residual_activation: str = "identity",
        bias: bool = True,
        positions: str = "none",
        d_pos_emb: int | None = None,
        position_norm: str = "rms",
        sink: bool = False,
        offsets: int | None = None,
        frozen_nodes: bool = False,
        bigram: str = "learned",
        tied_unembed: bool = False,
        afrac: float | None = 0.25,
        abstopk: tuple[str, ...] = tuple(ABSTOPK_SITES)[:8],
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.n_ctx = n_ctx
        self.n_layer = n_layer
        self.d_model = d_model
        self.d_head = d_head
        self.n_head = n_head if n_head is not None else d_model // d_head
        self.d_mlp = d_mlp if d_mlp is not None else 4 * d_model
        self.norm = norm
        self.norm_bias = norm_bias
        self.activation = activation
        self.residual_activation = residual_activation
        self.bias = bias
        self.positions = positions
        self.d_pos_emb = d_pos_emb
        self.position_norm = position_norm
        self.sink = sink
        self.offsets = offsets
        self.frozen_nodes = frozen_nodes
        self.bigram = bigram
        self.tied_unembed = tied_unembed
        self.afrac = afrac
        self.abstopk = list(abstopk)
        self.use_cache = use_cache
        unknown = set(self.abstopk) - set(ABSTOPK_SITES)
        if unknown:
            raise ValueError(f"abstopk: unknown {sorted(unknown)}; known are {sorted(ABSTOPK_SITES)}")
        super().__init__(**{**kwargs, "tie_word_embeddings": tied_unembed})

    @property
    def concatenates_positions(self) -> bool:
        """Whether position channels stand beside the block inputs."""
        return self.positions in ("concat", "concat_sinusoidal")

    @property
    def d_in(self) -> int:
        """Width of a block's input: d_model, plus the concatenated position channels."""
        return self.d_model + ((self.d_pos_emb or 0) if self.concatenates_positions else 0)

    def freezes(self, width: int) -> int | None:
        """Number of channels at a node site of a model whose nodes may be constants; None in others."""
        return width if self.frozen_nodes else None

    def abstopk_k(self, site: str, width: int) -> int | None:
        """How many of a site's `width` entries AbsTopK keeps; None where it does not act."""
        if self.afrac is None or site not in {ABSTOPK_SITES[name] for name in self.abstopk}:
            return None
        return int(self.afrac * width)
