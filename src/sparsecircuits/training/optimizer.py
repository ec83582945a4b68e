"""The optimizer: Adam on a normalised gradient, decoupled decay of the matrices (released script)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.training.config import OptimizerConfig
from sparsecircuits.training.distributed import World, local


def build_adam(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Adam:
    """Fused Adam; its moments stay dense, so that weights can come back."""
    return torch.optim.Adam(
        list(parameters),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def decayed_weights(model: SparseTransformer) -> list[nn.Parameter]:
    """What weight decay acts on: matrices, the bigram table apart."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and parameter.requires_grad and not name.startswith("bigram")
    ]


@torch.no_grad()
def decay_(weights: Sequence[Tensor], amount: float) -> None:
    """weights -= amount * weights, in place."""
    if amount:
        torch._foreach_mul_([local(weight) for weight in weights], 1.0 - amount)


@torch.no_grad()
def scale_gradients_(parameters: Iterable[nn.Parameter], mode: str, shards: World | None = None) -> Tensor:
    """Divide all gradients by their global root-mean-square + 1e-5 (normalise), or by it where it is above
    1 (clip), or not at all (none). Returns the root-mean-square before. shards: the processes that each hold a
    part of every gradient."""
    whole = [p.grad for p in parameters if p.grad is not None]
    gradients = [local(g) for g in whole]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    norm = norm if shards is None else shards.sum_(norm.square()).sqrt()
    rms = norm / sum(g.numel() for g in whole) ** 0.5
    if mode == "normalise":
        torch._foreach_mul_(gradients, float(1.0 / (rms + 1e-5)))
    elif mode == "clip" and rms > 1:
        torch._foreach_mul_(gradients, float(1.0 / rms))
    return rms
