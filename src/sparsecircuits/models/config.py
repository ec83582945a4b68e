"""The architecture as one frozen dataclass (Gao et al. 2025, section 2 and appendix). Imports no torch."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from sparsecircuits.errors import UserError, no_such

# Where AbsTopK may act, by the paper's location names, and the site that it belongs to.
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
Activation = Literal["gelu", "relu", "gelu_tanh"]
DEFAULT_ABSTOPK = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")


@dataclass(frozen=True)
class ModelConfig:
    """A GPT-2 style decoder. The defaults are the paper's shape; `n_head` and `d_mlp` follow from the width
    unless given."""

    vocab_size: int = 2048
    n_ctx: int = 256
    """Longest sequence, in tokens."""
    n_layer: int = 8
    d_model: int = 2048
    d_head: int = 16
    n_head: int | None = None
    """None: d_model / d_head."""
    d_mlp: int | None = None
    """None: 4 d_model."""
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = True
    """LayerNorm only."""
    activation: Activation = "gelu"
    """Of the neurons; gelu_tanh is GPT-2's own approximation of GELU."""
    residual_activation: Literal["identity", "relu"] = "identity"
    bias: bool = True
    positions: Literal["none", "added", "concat", "concat_sinusoidal"] = "none"
    """none; GPT-2's added table; or a normed table of d_pos_emb channels beside each block's input."""
    d_pos_emb: int | None = None
    position_norm: Literal["rms", "layer"] = "rms"
    """Norm of the concatenated position channels."""
    sink: bool = False
    """A learned logit per head in the softmax denominator."""
    offsets: int | None = None
    """A learned number per head and offset is added to the scores of the latest keys, so many of them, a query's own
    first (a clipped relative position bias: Shaw et al. 2018, Raffel et al. 2020); None: nothing is. Ours: the paper's
    models have none, and a sparse one needs many weights to look one token back through position channels."""
    frozen_nodes: bool = False
    """Beside the weights stand a gate and a constant for each node: nodes whose gate is 0 carry their constant,
    whatever they would be (what `sparsecircuits edit` cannot fold into biases). Training leaves both as they are."""
    bigram: Literal["none", "frozen", "learned"] = "learned"
    """A dense vocab x vocab table whose row of the current token is added to the logits."""
    tied_unembed: bool = False
    afrac: float | None = 0.25
    """Share of entries that AbsTopK keeps; None: no AbsTopK anywhere."""
    abstopk: tuple[str, ...] = DEFAULT_ABSTOPK
    """Where AbsTopK acts (paper's location names)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "abstopk", tuple(self.abstopk))
        require_finite(self, "model.")
        for name in ("vocab_size", "n_ctx", "n_layer", "d_model", "d_head", "n_head", "d_mlp"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.n_head is None and self.d_model % self.d_head:
            raise UserError(
                f"model.d_model {self.d_model} is no multiple of d_head {self.d_head}: "
                "give n_head, or change one of them"
            )
        if self.afrac is not None and not 0 < self.afrac <= 1:
            raise UserError(f"model.afrac must be in (0, 1] or none, got {self.afrac}")
        unknown = set(self.abstopk) - set(ABSTOPK_SITES)
        if unknown:
            raise UserError(f"model.abstopk: unknown {sorted(unknown)}; known are {sorted(ABSTOPK_SITES)}")
        if self.offsets is not None and self.offsets < 1:
            raise UserError(f"model.offsets must be at least 1 or none, got {self.offsets}")
        if self.concatenates_positions and (self.d_pos_emb or 0) < 1:
            raise UserError(f"model.positions {self.positions!r} needs d_pos_emb, at least 1")

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.n_head if self.n_head is not None else self.d_model // self.d_head

    @property
    def attn_width(self) -> int:
        """Channels of q (and of k, and of v): heads side by side."""
        return self.heads * self.d_head

    @property
    def mlp_width(self) -> int:
        """Number of MLP neurons."""
        return self.d_mlp if self.d_mlp is not None else 4 * self.d_model

    @property
    def concatenates_positions(self) -> bool:
        """Whether position channels stand beside the block inputs."""
        return self.positions in ("concat", "concat_sinusoidal")

    @property
    def d_in(self) -> int:
        """Width of a block's input: d_model, plus the concatenated position channels."""
        return self.d_model + (self.d_pos_emb or 0 if self.concatenates_positions else 0)

    def site_width(self, site: str) -> int:
        """Number of channels at a site such as `attn.q` or `mlp.post_act`."""
        if site in ("attn.q", "attn.k", "attn.v", "attn.y"):
            return self.attn_width
        if site in ("attn.act_in", "mlp.act_in"):
            return self.d_in
        return self.mlp_width if site == "mlp.post_act" else self.d_model

    def freezes(self, site: str) -> int | None:
        """Number of channels at a node site of a model with `frozen_nodes`; None in others."""
        return self.site_width(site) if self.frozen_nodes else None

    def abstopk_k(self, site: str) -> int | None:
        """How many entries AbsTopK keeps at a site: int(afrac * width); None where it does not act."""
        active = {ABSTOPK_SITES[name] for name in self.abstopk}
        if self.afrac is None or site not in active:
            return None
        return math.floor(self.afrac * self.site_width(site))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """JSON-able fields without what changes nothing: equal for configs that spell one architecture in two
        ways (`n_head` given or derived). What content hashes are taken over."""
        fields = self.to_dict()
        if self.n_head is not None and self.n_head * self.d_head == self.d_model:
            fields["n_head"] = None
        if self.d_mlp == 4 * self.d_model:
            fields["d_mlp"] = None
        if not self.concatenates_positions:
            fields["d_pos_emb"] = None
        if not self.concatenates_positions or self.position_norm == "rms":
            del fields["position_norm"]
        if self.offsets is None:  # so that it is that of before the field was there
            del fields["offsets"]
        if not self.frozen_nodes:
            del fields["frozen_nodes"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; an unknown key or a value of a wrong type is a UserError."""
        return from_fields(cls, fields, "model config")


def require_finite(config: Any, where: str) -> None:
    """Raise UserError for a number in a flat dataclass that is not finite."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}{field.name} must be a finite number, got {value}")


def from_fields(cls: type, fields: Any, what: str) -> Any:
    """Build a flat dataclass from JSON, refusing unknown keys and values of the wrong type by name."""
    if not isinstance(fields, dict):
        raise UserError(f"{what}: expected an object, got {type(fields).__name__}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise UserError(f"{what}: {no_such('unknown key', unknown[0], known, 'known keys are')}")
    import typing

    hints = typing.get_type_hints(cls)
    for name, value in fields.items():
        if not _matches(value, hints[name]):
            raise UserError(f"{what}: {name} has the value {value!r}, expected {hints[name]}")
    return cls(**fields)


def _matches(value: Any, hint: Any) -> bool:
    import types
    import typing

    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_matches(v, typing.get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
