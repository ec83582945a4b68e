"""Read the released checkpoint format: a folder of `beeg_config.json` and `final_model.pt`."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.files import read_text
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import fill_state
from sparsecircuits.models.transformer import SparseTransformer

CONFIG_NAME, WEIGHTS_NAME = "beeg_config.json", "final_model.pt"

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
    try:
        positions = "added"
        if c["d_pos_emb"]:
            positions = "concat_sinusoidal" if c["sinusoidal_cat_pos_emb"] else "concat"
        bigram = "none"
        if c["enable_bigram_table"]:
            bigram = "learned" if c["learnable_bigram_table"] else "frozen"
        sites = tuple(name for name in str(c["afrac_loctypes"] or "").split(",") if name)
        fields = {
            **{key: c[key] for key in ("vocab_size", "n_layer", "n_head", "d_model", "d_mlp", "bias", "sink")},
            **{key: c[key] for key in ("tied_unembed", "d_pos_emb", "afrac")},
            "n_ctx": c["block_size"],
            "d_head": c["d_head"] or c["d_model"] // c["n_head"],
            "norm": "rms" if c["rms_norm"] else "layer",
            "norm_bias": c["ln_bias"],
            "activation": c["activation_type"],
            "residual_activation": c["residual_activation_type"],
            "positions": positions,
            "bigram": bigram,
            "abstopk": sites,
        }
    except (TypeError, ZeroDivisionError) as error:
        raise UserError(f"{CONFIG_NAME} holds a value of the wrong type: {error}") from error
    return ModelConfig.from_dict(fields)


def _rename(key: str) -> str | None:
    if key.startswith("transformer.h.") and key.endswith(".attn.bias"):
        return None  # causal buffer of old files
    key = key.removeprefix("transformer.").replace("attn.attn_imp.sink_logit", "attn.sink_logit")
    if key.startswith("h."):
        return "blocks." + key[2:]
    return {"final_logits_bias": "logit_bias", "bigram_table": "bigram.weight"}.get(key, key)


def load_released(directory: Path) -> SparseTransformer:
    """Load a released model directory. Never executes code (`weights_only`); raises UserError for anything
    missing, damaged, of a wrong shape, or not finite."""
    try:
        raw = json.loads(read_text(directory / CONFIG_NAME, "released config"))
    except json.JSONDecodeError as error:
        raise UserError(f"{directory / CONFIG_NAME} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{directory / CONFIG_NAME} does not hold an object")
    config = config_from_released(raw)
    state = _load_state(directory / WEIGHTS_NAME)
    renamed = {name: tensor for key, tensor in state.items() if (name := _rename(key)) is not None}
    if config.tied_unembed:
        renamed.setdefault("lm_head.weight", renamed.get("wte.weight", torch.empty(0)))
    model = SparseTransformer(config)
    renamed.setdefault("logit_bias", torch.zeros(config.vocab_size))
    fill_state(model, renamed, str(directory / WEIGHTS_NAME))
    model.name = directory.name
    return model.eval()


def _load_state(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the loader thinks of a file's protocol is no news for a user
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or not a plain weights file ({first})") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} does not hold a state dict of tensors")
    return state
