"""GPT-2 directories of Hugging Face, read as our model: the same blocks, with no weight zero and no AbsTopK.

So every command that takes a dense model (`bridge`, `tasks`, `prune`, `train --init`) takes one that was trained with
transformers. Neither that library nor code in the folder is run.
"""

from typing import Any

from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import Activation, ModelConfig

MODEL_TYPE = "gpt2"
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
}
# Config keys, and the one value of each with which our model computes the same. A missing one has it by default.
_FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_PREFIX, _LAYER = "transformer.", "h."
# Causal masks that old files hold beside the weights.
_MASKS = (".attn.bias", ".attn.masked_bias")
# transformers keeps these as [in, out].
_TURNED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")


def config_from_gpt2(raw: dict[str, Any], where: str) -> ModelConfig:
    """Our config of a GPT-2 one. Raises UserError, naming the key, where our model would compute something else."""
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise UserError(f"{where}: {key} is {raw[key]!r}; GPT-2 models are read with {value!r} alone")
    name = raw.get("activation_function", "gelu_new")
    if name not in ACTIVATIONS:
        raise UserError(f"{where}: activation_function is {name!r}; read are {', '.join(ACTIVATIONS)}")
    width, heads = raw.get("n_embd", 768), raw.get("n_head", 12)
    for key, value in (("n_embd", width), ("n_head", heads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{where}: {key} is {value!r}, no number of at least 1")
    if width % heads:
        raise UserError(f"{where}: n_embd {width} is no multiple of n_head {heads}")
    return ModelConfig.from_dict(
        {
            "vocab_size": raw.get("vocab_size", 50257),
            "n_ctx": raw.get("n_positions", 1024),
            "n_layer": raw.get("n_layer", 12),
            "d_model": width,
            "d_head": width // heads,
            "n_head": heads,
            "d_mlp": raw.get("n_inner"),
            "norm": "layer",
            "activation": ACTIVATIONS[name],
            "positions": "added",
            "bigram": "none",
            "tied_unembed": raw.get("tie_word_embeddings", True),
            "afrac": None,
        }
    )


def state_from_gpt2(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our tensors of GPT-2's, for `build`, which checks names and shapes; of a model that was saved with its head or
    without (`GPT2Model`)."""
    import torch

    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith(_MASKS):
            continue
        name = key.removeprefix(_PREFIX)
        name = f"blocks.{name.removeprefix(_LAYER)}" if name.startswith(_LAYER) else name
        found[name] = tensor.T.contiguous() if name.endswith(_TURNED) and tensor.dim() == 2 else tensor
    found["logit_bias"] = torch.zeros(config.vocab_size)
    return found
