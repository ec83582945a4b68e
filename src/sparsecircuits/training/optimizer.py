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
    """What weight decay acts on: matrices, the bigram table and logits by offset apart."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2
        and parameter.requires_grad
        and not (name.startswith("bigram") or name.endswith("offset_logit"))
    ]


@torch.no_grad()
def decay_(weights: Sequence[Tensor], amount: float) -> None:
    """weights -= amount * weights, in place."""
    if amount and len(weights):
        torch._foreach_mul_([local(weight) for weight in weights], 1.0 - amount)


@torch.no_grad()
def gradient_rms(
    gradients: Sequence[Tensor],
    entries: int,
    sampled: Sequence[Tensor] = (),
    share: float = 1.0,
    shards: World | None = None,
) -> Tensor:
    """The root-mean-square over all `entries` of the whole gradient.

    sampled: gradients that are known at a few of their entries alone, which hold `share` of their squares; what the
    others would add is estimated from it. shards: the processes that each hold a part of every gradient.
    """
    squares = [
        torch.stack(torch._foreach_norm([local(g) for g in group])).square().sum() / part
        for group, part in ((gradients, 1.0), (sampled, share))
        if len(group)
    ]
    total = torch.stack(squares).sum()
    total = total if shards is None else shards.sum_(total)
    return (total / entries).sqrt()


@torch.no_grad()
def scale_gradients_(gradients: Sequence[Tensor], rms: Tensor, mode: str) -> None:
    """Divide all gradients by their root-mean-square + 1e-5 (normalise), or by it where it is above 1 (clip), or
    not at all (none)."""
    mine = [local(g) for g in gradients]
    if mode == "normalise":
        torch._foreach_mul_(mine, float(1.0 / (rms + 1e-5)))
    elif mode == "clip" and rms > 1:
        torch._foreach_mul_(mine, float(1.0 / rms))
