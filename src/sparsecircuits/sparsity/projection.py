"""Which matrices are projected, to how many entries, and the projection itself."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.kernels import project_topk_
from sparsecircuits.models.transformer import SparseTransformer, sparse_matrices
from sparsecircuits.sparsity.schedules import SparsityConfig, density_at


@dataclass(frozen=True)
class Target:
    """One tensor's goal: the density it ends at and the floor of its units.

    dim: 1 when a unit is a row (outputs of c_fc and c_attn), 0 when a column (inputs of c_proj).
    """

    name: str
    density: float
    floor: int
    dim: int


def targets(model: SparseTransformer, config: SparsityConfig) -> list[Target]:
    """The projection's targets. Raises UserError when a floor does not fit in a matrix's final budget."""
    found = []
    matrices = sparse_matrices(model)
    asked = {name: _density(name, config) for name in matrices}
    densities = erdos_renyi({n: tuple(m.shape) for n, m in matrices.items()}, asked) if config.start == "erk" else asked
    for name, matrix in matrices.items():
        density, embedding = densities[name], _is_embedding(name)
        dim = 0 if "c_proj" in name else 1
        floor = 0 if embedding else min(config.floor, matrix.shape[dim])
        need = floor * matrix.shape[1 - dim]
        if need > budget(matrix, density):
            enough = asked[name] * need / (density * matrix.numel())
            raise UserError(
                f"density {density:g} leaves {name} {budget(matrix, density)} nonzeros, but a floor of {floor} "
                f"needs {need}: raise sparsity.density to {enough:.4g} or lower sparsity.floor"
            )
        found.append(Target(name, density, floor, dim))
    if config.sparse_biases:
        found += [
            Target(name, config.density, 0, 1)
            for name, parameter in model.named_parameters()
            if name.endswith("bias") and parameter.requires_grad
        ]
    return found


def _is_embedding(name: str) -> bool:
    return name.startswith(("wte", "lm_head"))


def _density(name: str, config: SparsityConfig) -> float:
    if config.embed_density is not None and _is_embedding(name):
        return config.embed_density
    return config.density


def erdos_renyi(shapes: dict[str, tuple[int, ...]], densities: dict[str, float]) -> dict[str, float]:
    """Densities in proportion to (outputs + inputs) / (outputs * inputs), at most 1, so that all matrices that
    were given one density keep as many weights together as before."""
    found: dict[str, float] = {}
    for density in set(densities.values()):
        group = {name: shape for name, shape in shapes.items() if densities[name] == density}
        left = density * sum(math.prod(shape) for shape in group.values())
        while group:
            scale = left / sum(map(sum, group.values()))
            full = [name for name, shape in group.items() if scale * sum(shape) >= math.prod(shape)]
            if not full:
                found |= {name: scale * sum(shape) / math.prod(shape) for name, shape in group.items()}
                break
            found |= dict.fromkeys(full, 1.0)
            left -= sum(math.prod(group.pop(name)) for name in full)
    return found


def budget(tensor: Tensor, density: float) -> int:
    """Entries that a tensor keeps at a density: int(density * size), as the released script rounds."""
    return int(density * tensor.numel())


class Projector:
    """Projects a model's weights after each optimizer step."""

    def __init__(self, model: SparseTransformer, config: SparsityConfig) -> None:
        self.model, self.config = model, config
        self.targets = [] if config.dense or config.sparsifier != "topk" else targets(model, config)

    @torch.no_grad()
    def __call__(self, progress: float, held: Collection[str] = ()) -> None:
        """Zero all but the budget of this moment, per tensor, exactly. held: names of those to leave as they are."""
        for target in self.targets:
            if target.name in held:
                continue
            weight = self.model.get_parameter(target.name)
            share = density_at(progress, target.density, self.config)
            matrix = weight.data if weight.dim() == 2 else weight.data.view(1, -1)
            project_topk_(matrix, budget(weight, share), target.floor, target.dim)
