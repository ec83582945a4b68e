"""Random architectures with random weights, as hypothesis strategies and as plain functions."""

import torch
from hypothesis import strategies as st

from sparsecircuits.models.config import ABSTOPK_SITES, ModelConfig
from sparsecircuits.models.transformer import SparseTransformer


@st.composite
def configs(draw, vocab_size: int = 40, ours: bool = False) -> ModelConfig:
    """Any mix of the options that the released format has. ours: and of those that are ours alone."""
    positions = draw(st.sampled_from(["none", "added", "concat", "concat_sinusoidal"]))
    norm = draw(st.sampled_from(["rms", "layer"]))
    concatenates = positions.startswith("concat")
    return ModelConfig(
        vocab_size=vocab_size,
        n_ctx=12,
        n_layer=draw(st.integers(1, 2)),
        d_model=draw(st.sampled_from([8, 12])),
        d_head=draw(st.sampled_from([2, 3, 4])),
        n_head=draw(st.integers(1, 3)),
        d_mlp=draw(st.sampled_from([None, 7, 40])),
        norm=norm,
        norm_bias=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "relu", "gelu_tanh"] if ours else ["gelu", "relu"])),
        residual_activation=draw(st.sampled_from(["identity", "relu"])),
        bias=draw(st.booleans()),
        positions=positions,
        d_pos_emb=draw(st.sampled_from([2, 5])) if concatenates else None,
        position_norm=norm if concatenates else "rms",
        sink=draw(st.booleans()),
        offsets=draw(st.sampled_from([None, 1, 3, 20])) if ours else None,
        frozen_nodes=ours and draw(st.booleans()),
        bigram=draw(st.sampled_from(["none", "frozen", "learned"])),
        tied_unembed=draw(st.booleans()),
        afrac=draw(st.sampled_from([None, 0.25, 0.5, 0.05])),
        abstopk=tuple(draw(st.lists(st.sampled_from(sorted(ABSTOPK_SITES)), unique=True))),
    )


def random_model(config: ModelConfig, seed: int = 0) -> SparseTransformer:
    """A model whose every tensor is random (zeros of both signs among them), norms and sinks included."""
    torch.manual_seed(seed)
    model = SparseTransformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
            parameter.mul_(torch.rand_like(parameter) > 0.3)
        for name, buffer in model.named_buffers():  # of frozen nodes
            buffer.copy_(torch.rand_like(buffer) > 0.2 if name.endswith("gate") else torch.randn_like(buffer))
    return model


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 tensor's bit patterns."""
    return tensor.contiguous().view(torch.int32)
