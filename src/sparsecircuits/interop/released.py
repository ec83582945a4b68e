"""The released checkpoint format, read and written: a folder of `beeg_config.json` and `final_model.pt`."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, read_json, write_text
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import build, tie_head_
from sparsecircuits.models.torch_files import load_plain
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import RELEASED_CONFIG, RELEASED_WEIGHTS

TOKENIZER_NAME = "tinypython_2k"

_DEFAULTS: dict[str, Any] = {
    "block_size": 1024,
    "vocab_size": 50304,
    "n_layer": 12,
    "n_head": 12,
    "d_head": None,
    "d_model": 768,
    "d_mlp": None,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "d_pos_emb": None,
    "sinusoidal_cat_pos_emb": False,
    "enable_bigram_table": False,
    "learnable_bigram_table": False,
    "sink": False,
}
# Those that are read as a choice below; the others are checked by `ModelConfig`.
_FLAGS = ("rms_norm", "sinusoidal_cat_pos_emb", "enable_bigram_table", "learnable_bigram_table")
# Keys that change nothing about what the model computes at inference, and legacy ones.
_IGNORED = {
    "dropout", "dropout_cat_pos_emb", "tokenizer_name", "flash", "grad_checkpointing", "debug_nans",
    "enable_sparse_kernels", "n_embd", "afrac_approx", "ignore_dw_grad", "bigram_table_rank", "pfrac",
    "expansion_factor", "expansion_factor_mlp", "debug_exact_topk", "sparse_matmul_impl", "rtopk", "n_mlp",
    "use_tied_aux_matrix",
}  # fmt: skip


def config_from_released(raw: dict[str, Any]) -> ModelConfig:
    """Translate a released config: an unknown key is a warning naming it, an unusable value a UserError."""
    if raw.get("use_tied_aux_matrix"):
        raise UserError("use_tied_aux_matrix is on in this checkpoint: such a model cannot be represented")
    for key in sorted(set(raw) - set(_DEFAULTS) - _IGNORED):
        warnings.warn(f"ignoring unknown key {key!r} of the released config", stacklevel=2)
    c = {**_DEFAULTS, **{key: value for key, value in raw.items() if key in _DEFAULTS}}
    if c["d_mlp"] is None:
        c["d_mlp"] = raw.get("n_mlp")
    for key in _FLAGS:
        if not isinstance(c[key], bool):
            raise UserError(f"{RELEASED_CONFIG}: {key} has the value {c[key]!r}, expected true or false")
    try:
        positions = "added"
        if c["d_pos_emb"]:
            positions = "concat_sinusoidal" if c["sinusoidal_cat_pos_emb"] else "concat"
        bigram = "none"
        if c["enable_bigram_table"]:
            bigram = "learned" if c["learnable_bigram_table"] else "frozen"
        sites = tuple(name for name in str(c["afrac_loctypes"] or "").split(",") if name)
        norm = "rms" if c["rms_norm"] else "layer"
        fields = {
            **{key: c[key] for key in ("vocab_size", "n_layer", "n_head", "d_model", "d_mlp", "bias", "sink")},
            **{key: c[key] for key in ("tied_unembed", "d_pos_emb", "afrac")},
            "n_ctx": c["block_size"],
            "d_head": c["d_model"] // c["n_head"] if c["d_head"] is None else c["d_head"],
            "norm": norm,
            "norm_bias": c["ln_bias"],
            "position_norm": norm if c["d_pos_emb"] else "rms",
            "activation": c["activation_type"],
            "residual_activation": c["residual_activation_type"],
            "positions": positions,
            "bigram": bigram,
            "abstopk": sites,
        }
    except (TypeError, ZeroDivisionError) as error:
        raise UserError(f"{RELEASED_CONFIG} holds a value of the wrong type: {error}") from error
    return ModelConfig.from_dict(fields)


def config_to_released(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_released`: the published keys alone, so that any reader of the format takes
    them. Raises UserError for an architecture that the format cannot say."""
    if config.concatenates_positions and config.position_norm != config.norm:
        raise UserError(
            f"the released format has one norm for all: {config.norm} beside {config.position_norm} for the "
            "position channels cannot be written"
        )
    if config.offsets is not None:
        raise UserError("the released format knows no logits by offset (model.offsets): it cannot hold this model")
    if config.activation == "gelu_tanh":
        raise UserError("the released format knows no GELU by tanh (model.activation): it cannot hold this model")
    if config.frozen_nodes:
        raise UserError("the released format knows no frozen nodes (model.frozen_nodes): it cannot hold this model")
    return {
        "block_size": config.n_ctx,
        "vocab_size": config.vocab_size,
        "n_layer": config.n_layer,
        "n_head": config.heads,
        "d_head": config.d_head,
        "d_model": config.d_model,
        "d_mlp": config.mlp_width,
        "dropout": 0.0,
        "bias": config.bias,
        "ln_bias": config.norm_bias,
        "rms_norm": config.norm == "rms",
        "residual_activation_type": config.residual_activation,
        "activation_type": config.activation,
        "afrac": config.afrac,
        "afrac_loctypes": ",".join(config.abstopk),
        "tied_unembed": config.tied_unembed,
        "tokenizer_name": TOKENIZER_NAME,
        "d_pos_emb": config.d_pos_emb if config.concatenates_positions else None,
        "sinusoidal_cat_pos_emb": config.positions == "concat_sinusoidal",
        "enable_bigram_table": config.bigram != "none",
        "learnable_bigram_table": config.bigram == "learned",
        "sink": config.sink,
        "flash": True,
        "grad_checkpointing": False,
    }


# Names that differ, native to released; all others gain the prefix `transformer.`.
_RENAMED = {"logit_bias": "final_logits_bias", "bigram.weight": "bigram_table", "lm_head.weight": "lm_head.weight"}
_SINK, _RELEASED_SINK = "attn.sink_logit", "attn.attn_imp.sink_logit"


def _to_native(key: str) -> str | None:
    if key.startswith("transformer.h.") and key.endswith(".attn.bias"):
        return None  # causal buffer of old files
    for native, released in _RENAMED.items():
        if key == released:
            return native
    key = key.removeprefix("transformer.").replace(_RELEASED_SINK, _SINK)
    return "blocks." + key[2:] if key.startswith("h.") else key


def _to_released(name: str) -> str:
    if name in _RENAMED:
        return _RENAMED[name]
    name = name.replace(_SINK, _RELEASED_SINK)
    return "transformer." + ("h." + name.removeprefix("blocks.") if name.startswith("blocks.") else name)


def _is_no_position_table(table: Tensor) -> bool:
    """Whether a position table is the stand-in for none: all negative zeros, the one value that added to a
    float never changes it."""
    return bool((table == 0).all() and table.signbit().all())


def state_to_released(model: SparseTransformer) -> dict[str, Tensor]:
    """A model's tensors under their released names. A model without positions gets a table of negative zeros,
    since the format always has one."""
    config = model.config
    state = {_to_released(name): t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    if config.positions == "none":
        state["transformer.wpe.weight"] = torch.full((config.n_ctx, config.d_model), -0.0)
    if config.tied_unembed:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a released config. Raises UserError for anything else."""
    raw = read_json(path, "released config")
    if not isinstance(raw, dict):
        raise UserError(f"{path} does not hold an object")
    return raw


def load_released(directory: Path) -> SparseTransformer:
    """Load a released model directory. Never executes code (`weights_only`); raises UserError for anything
    missing, damaged, of a wrong shape, or not finite."""
    config = config_from_released(read_config(directory / RELEASED_CONFIG))
    state = load_pt_tensors(directory / RELEASED_WEIGHTS)
    model = build(*_fit(config, state), str(directory / RELEASED_WEIGHTS))
    model.name = directory.resolve().name
    return model.eval()


def _fit(config: ModelConfig, released: dict[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The config and the tensors as `build` takes them: what old files lack is filled in, what the config
    leaves open is read off the tensors."""
    state = {name: tensor for key, tensor in released.items() if (name := _to_native(key)) is not None}
    fields = config.to_dict()
    tie_head_(config, state)
    if "logit_bias" not in state and config.vocab_size < 2**31:
        state["logit_bias"] = torch.zeros(config.vocab_size)
    if config.position_norm == "layer" and config.norm_bias and "blocks.0.ln_p1.bias" not in state:
        fields["position_norm"] = "rms"  # some files norm the position channels alone this way
    table = state.get("wpe.weight")
    if config.positions == "added" and table is not None and _is_no_position_table(table):
        fields["positions"] = "none"
        del state["wpe.weight"]
    return ModelConfig.from_dict(fields), state


def save_released(model: SparseTransformer, directory: Path) -> None:
    """Write a model as a released directory: dense weights, and the tokenizer as `vocab.bpe` and
    `encoder.json` where the model has one. `load_released` gives every tensor back bit by bit."""
    directory = Path(directory)
    config = config_to_released(model.config)
    if model.tokenizer is not None:
        from sparsecircuits.interop.data_gym import save_data_gym

        save_data_gym(model.tokenizer, directory)
    with atomic_path(directory / RELEASED_WEIGHTS) as temporary:
        torch.save(state_to_released(model), temporary)
    write_text(directory / RELEASED_CONFIG, json.dumps(config, indent=1) + "\n")


def load_pt_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pt` file. Raises UserError as `load_plain` does, and for anything else in it."""
    state = load_plain(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} does not hold a state dict of tensors")
    return dict(state)
