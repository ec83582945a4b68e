"""Learn which nodes a task needs: a gate per node, trained through a straight-through Heaviside."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.gates import NodeSpace, gated
from sparsecircuits.pruning.objective import candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import PairBatch, Task


class _Heaviside(torch.autograd.Function):
    """1 where tau >= 0; backward as if it were sigmoid(tau / T)."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(tau)
        ctx.temperature = temperature
        return (tau >= 0).to(tau.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (tau,) = ctx.saved_tensors
        slope = torch.sigmoid(tau / ctx.temperature)
        return grad * slope * (1 - slope) / ctx.temperature, None


def heaviside(tau: Tensor, temperature: float) -> Tensor:
    """Step function with the straight-through gradient σ'(τ/T)/T."""
    return _Heaviside.apply(tau, temperature)


def _batches(task: Task, config: PruneConfig) -> list[PairBatch]:
    """A pool of training pairs, cut into batches of similar length so that little is padding."""
    pool = task.pairs("train", min(config.steps, 16) * config.pairs, config.seed)
    pairs = sorted(pool, key=lambda pair: len(pair.left))
    return [task.encode(pairs[start : start + config.pairs]) for start in range(0, len(pairs), config.pairs)]


def learn_gates(
    model: SparseTransformer,
    task: Task,
    frozen: Float[Tensor, "nodes"],
    config: PruneConfig,
    report: Callable[[int, float, int], None] | None = None,
) -> Float[Tensor, "nodes"]:
    """Train one gate per node, shared by all prompts and positions, and return τ.

    Loss: task loss + k_coef * number of active nodes; AdamW, gradient clipped, τ clamped to [-1, 1], the
    learning rate warmed up, then linear to 0. report(step, task loss, active nodes) after each step.
    """
    space, generator = NodeSpace.of(model.config), torch.Generator().manual_seed(config.seed)
    noise = torch.randn(space.size, generator=generator)
    start = config.init_noise_bias + config.init_noise_scale * noise
    tau = start.clamp(-1, 1).to(model.device).requires_grad_()
    optimiser = torch.optim.AdamW(
        [tau], lr=config.lr, betas=(0.9, 1 - config.one_minus_beta2), weight_decay=config.weight_decay
    )
    batches = _batches(task, config)
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        for step in range(config.steps):
            if step % len(batches) == 0:
                order = torch.randperm(len(batches), generator=generator).tolist()
            batch = batches[order[step % len(batches)]]
            gates = heaviside(tau, config.heaviside_temp)
            with gated(model, space, gates, frozen):
                loss = task_loss(candidate_logits(model, batch), correct_of(batch, model.device))
            optimiser.zero_grad()
            (loss + config.k_coef * gates.sum()).backward()
            torch.nn.utils.clip_grad_norm_([tau], config.clip)
            for group in optimiser.param_groups:
                group["lr"] = config.lr * _rate((step + 1) / config.steps, config.lr_warmup_frac)
            optimiser.step()
            with torch.no_grad():
                tau.clamp_(-1, 1)
            if report is not None:
                report(step + 1, loss.item(), int(gates.sum()))
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
    return tau.detach().cpu()


def _rate(progress: float, warmup: float) -> float:
    """Share of the peak learning rate: linear up over `warmup`, then linear down to 0."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
