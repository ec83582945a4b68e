"""The model's own layers over lists of nonzeros: a `SparseTransformer` whose sparse matrices take no memory."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsecircuits.kernels import Held
from sparsecircuits.kernels.sparse_linear import MOST_DENSE
from sparsecircuits.models.names import MATRICES
from sparsecircuits.models.storage import shell
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.plans.nonzeros import Nonzeros
from sparsecircuits.plans.plan import Plan


@dataclass(frozen=True)
class HeldModel:
    """A model whose matrices are held as their nonzeros. unembedding, bigram: what its own `unembed` would want
    dense."""

    model: SparseTransformer
    unembedding: Held
    bigram: Held | None

    def unembed(self, hidden: Float[Tensor, "B S D"], input_ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """Logits from what `final_norm` gives."""
        logits = self.unembedding.linear(hidden.contiguous(), self.model.logit_bias)
        if self.bigram is not None:
            return logits + self.bigram.embed(input_ids)
        return logits if self.model.bigram is None else logits + self.model.bigram(input_ids)


def held_model(plan: Plan, dtype: str) -> HeldModel:
    """The layers of a plan in which everything varies. dtype: what weights are rounded to; they compute in float32."""
    config = plan.config
    with torch.inference_mode(False), torch.no_grad():
        model = shell(config, config.n_layer, "the plan").eval()
        _load(model, {**plan.tensors, **_biases(plan)})
        if plan.bigram is not None:
            model.bigram = None
        for layer in range(config.n_layer):
            for name, (_, targets) in MATRICES.items():
                linear = model.block(layer).get_submodule(name)
                matrix = Nonzeros.stack([plan.products[f"{layer}.{target}"].matrix for target in targets])
                _hold(linear, _rounded(matrix, dtype))
        model.wte.held = _rounded(plan.embedding, dtype).held()
        bigram = None if plan.bigram is None else plan.bigram.held()
        return HeldModel(model, _rounded(plan.unembedding, dtype).held(), bigram)


def _hold(linear: nn.Module, matrix: Nonzeros) -> None:
    """Let a layer compute with a matrix's nonzeros, or with all of it where that is faster."""
    assert isinstance(linear, nn.Linear)
    if len(matrix) < MOST_DENSE * matrix.shape[0] * matrix.shape[1]:
        linear.held = matrix.held()  # type: ignore[assignment]
    else:
        linear.weight = nn.Parameter(matrix.held().dense(), requires_grad=False)


def _rounded(matrix: Nonzeros, dtype: str) -> Nonzeros:
    if dtype == "float32":
        return matrix
    values = torch.from_numpy(matrix.values).bfloat16().float().numpy()
    return Nonzeros(matrix.shape, matrix.rows, matrix.columns, values)


def _biases(plan: Plan) -> dict[str, Tensor]:
    """The plan's constants, by the model's names."""
    found = {}
    for layer in range(plan.config.n_layer if plan.config.bias else 0):
        for name, (_, targets) in MATRICES.items():
            constants = [plan.products[f"{layer}.{target}"].constant for target in targets]
            found[f"blocks.{layer}.{name}.bias"] = torch.from_numpy(np.concatenate(constants))
    return found


def _load(model: SparseTransformer, tensors: dict[str, Tensor]) -> None:
    """Give a model without memory what of it is not sparse."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.load_state_dict(tensors, strict=False, assign=True)


def position_channels(plan: Plan) -> Float[np.ndarray, "halves n_ctx P"]:
    """The normed position channels that stand beside what each half of a layer reads."""
    config = plan.config
    extra = config.d_in - config.d_model
    if not extra:
        return np.zeros((2 * config.n_layer, 1, 0), np.float32)
    with torch.inference_mode(False), torch.no_grad():
        model = shell(config, config.n_layer, "the plan").eval()
        _load(model, plan.tensors)
        assert model.wpe is not None
        norms = [
            norm for layer in range(config.n_layer) for norm in (model.block(layer).ln_p1, model.block(layer).ln_p2)
        ]
        tables = [norm(model.wpe.weight) for norm in norms if norm is not None]
    return torch.stack(tables).numpy()
