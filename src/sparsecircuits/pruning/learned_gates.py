"""Learn which nodes, and which edges, a task needs: a gate each, trained through a straight-through Heaviside."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.edges import EdgeGates, Edges
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.task_loss import candidate_logits, correct_of, task_loss
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.tasks import PairBatch, Task

Report = Callable[[int, float, int], None]
MIXED = 0.5  # share of steps in which some of what is off runs, where pruning aims at such mixtures
SMOOTHING = 0.2  # share of the newest loss in the running mean


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


def training_batches(task: Task, config: PruneConfig) -> list[PairBatch]:
    """A pool of training pairs, cut into batches of similar length so that little is padding."""
    pool = task.pairs("train", min(config.steps, 16) * config.pairs, config.seed)
    pairs = sorted(pool, key=lambda pair: len(pair.left))
    return [task.encode(pairs[start : start + config.pairs]) for start in range(0, len(pairs), config.pairs)]


def learn_gates(
    model: SparseTransformer,
    task: Task,
    frozen: Float[Tensor, " nodes"],
    config: PruneConfig,
    goal: float,
    report: Report | None = None,
    calibration: Calibration | None = None,
    allowed: Bool[Tensor, " nodes"] | None = None,
) -> Float[Tensor, " nodes"]:
    """Train one gate per node, shared by all prompts and positions, and return τ (see `_learn`).

    allowed: nodes that may run, by default all; the others' gates stay closed, whatever their τ. With `tied_qk`, a
    head's query channel and the key channel that it is multiplied with share one gate. With stochastic or adversarial
    ablation a random share of the nodes whose gates are closed run all the same in every second step or so, so that a
    node whose effect another one cancels is missed.
    """
    space, owner = NodeSpace.of(model.config), None
    if config.tied_qk:
        owner = tied_query_keys(space).to(model.device)
    generator = torch.Generator().manual_seed(config.seed)

    def gating(gates: Tensor) -> Gating:
        if config.carried != config.ablation and torch.rand(1, generator=generator) < MIXED:
            share = torch.rand(1, generator=generator)
            running = (torch.rand(space.size, generator=generator) >= share).to(gates)
            gates = gates + (1 - gates) * running
        return Gating(space, gates, frozen, config.carried)

    mask = None if allowed is None else allowed.to(model.device, torch.float32)
    return _learn(model, task, space.size, gating, config, config.steps, goal, report, calibration, owner, mask)


def tied_query_keys(space: NodeSpace) -> Tensor:
    """Whose gate each node has [nodes]: its own, but for key channels that of the query channel."""
    owner = torch.arange(space.size)
    for site, place in space.slices.items():
        if site.endswith("attn.k"):
            owner[place] = owner[space.slices[site[:-1] + "q"]]
    return owner


def learn_edge_gates(
    model: SparseTransformer,
    task: Task,
    frozen: Float[Tensor, " nodes"],
    kept: Bool[Tensor, " nodes"],
    edges: Edges,
    config: PruneConfig,
    goal: float,
    report: Report | None = None,
    calibration: Calibration | None = None,
) -> Float[Tensor, " E"]:
    """Train one gate per edge, with the nodes outside `kept` frozen, and return τ (see `_learn`)."""
    space, on = NodeSpace.of(model.config), kept.float().to(model.device)

    def gating(gates: Tensor) -> Gating:
        return Gating(space, on, frozen, config.carried, EdgeGates(edges, gates))

    return _learn(model, task, len(edges), gating, config, config.edge_steps, goal, report, calibration)


def _learn(
    model: SparseTransformer,
    task: Task,
    size: int,
    gating: Callable[[Tensor], Gating],
    config: PruneConfig,
    steps: int,
    goal: float,
    report: Report | None,
    calibration: Calibration | None,
    owner: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, " size"]:
    """Train `size` gates and return τ.

    Loss: task loss + weight * number of gates that are on. The weight is k_coef at a loss of 0 and falls to 0 at
    the goal (judged by a running mean), so that the gates press on the loss that has to be held and no
    further: with a fixed weight a small circuit can cost more than it brings, and all of it closes. AdamW,
    gradient clipped, τ clamped to [-1, 1], the learning rate warmed up, then linear to 0.
    calibration: what the logits go through (see `unbiased`). owner [size]: whose τ each gate uses, by default its own.
    mask [size]: 0 for gates that stay closed. report(step, task loss, gates on) after each step.
    """
    generator = torch.Generator().manual_seed(config.seed)
    start = config.init_noise_bias + config.init_noise_scale * torch.randn(size, generator=generator)
    tau = start.clamp(-1, 1).to(model.device).requires_grad_()
    optimiser = torch.optim.AdamW(
        [tau], lr=config.lr, betas=(0.9, 1 - config.one_minus_beta2), weight_decay=config.weight_decay
    )
    batches, mean, calibration = training_batches(task, config), goal, calibration or Calibration()
    with frozen_weights(model):
        for step in range(steps):
            if step % len(batches) == 0:
                order = torch.randperm(len(batches), generator=generator).tolist()
            batch = batches[order[step % len(batches)]]
            gates = heaviside(tau if owner is None else tau[owner], config.heaviside_temp)
            gates = gates if mask is None else gates * mask
            logits = calibration(candidate_logits(model, batch, gating(gates)))
            loss = task_loss(logits, correct_of(batch, model.device))
            value = loss.item()
            mean += SMOOTHING * (value - mean)
            weight = config.k_coef * max(0.0, 1 - mean / goal)
            optimiser.zero_grad()
            (loss + weight * gates.sum()).backward()
            torch.nn.utils.clip_grad_norm_([tau], config.clip)
            for group in optimiser.param_groups:
                group["lr"] = config.lr * _rate((step + 1) / steps, config.lr_warmup_frac)
            optimiser.step()
            with torch.no_grad():
                tau.clamp_(-1, 1)
            if report is not None:
                report(step + 1, value, int(gates.sum()))
    return (tau if owner is None else tau[owner]).detach().cpu()


@contextlib.contextmanager
def frozen_weights(model: SparseTransformer) -> Iterator[None]:
    """While open, the model's weights take no gradient."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def _rate(progress: float, warmup: float) -> float:
    """Share of the peak learning rate: linear up over `warmup`, then linear down to 0."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
