"""Feature binarisation: the circuit with its nodes in two values, or three where two are too few."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.descriptions import SHARES, activations
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.runs import Changes, final_logits, logits_by_chunk, losses_of
from sparsecircuits.models.names import split_node
from sparsecircuits.nodes.task_loss import accuracy, correct_of, pick_answers, task_loss
from sparsecircuits.pruning.learned_gates import frozen_weights
from sparsecircuits.tasks import PairBatch

ROUNDS = 40
"""Of training levels and thresholds."""
TRAINING_PAIRS = 16
"""A round."""
SOFTEST, HARDEST = 0.3, 0.01
"""How wide a step is at the beginning and at the end of training, in quarters of its node's range."""
RATE = 0.05
"""How far levels and thresholds move in a round, in the same."""
TOO_MUCH = 0.02
"""Nats: a node whose own values, among the others' steps, lower the loss by more could not be binarised."""


class TwoValued(BaseModel):
    """A node as a step: `low` below the threshold, `high` at or above it; with a second, larger threshold `middle`
    between the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    threshold: float
    low: float
    high: float
    second: float | None = None
    middle: float | None = None


class Binarised(BaseModel):
    """The circuit with every node replaced by a few values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Estimate
    """Nats, with the circuit's calibration; beside the circuit's own loss on the same prompts."""
    loss_before: float
    accuracy: float
    nodes: tuple[TwoValued, ...]
    # Cards of earlier versions have thresholds that were searched, and nothing was trained.
    loss_of_two: float | None = None
    """With two values for each."""
    failed: tuple[str, ...] = ()
    """Nodes that could not be binarised: with their own values among the others' two the loss is lower by more than
    0.02 nats. They have three values in `nodes`, where that is better."""


@dataclass(frozen=True)
class _Staircases:
    """Nodes of one site as functions of two or three values."""

    index: Int[Tensor, " n"]
    thresholds: Float[Tensor, "n 2"]
    levels: Float[Tensor, "n 3"]
    """From the smallest activation on."""
    three: Bool[Tensor, " n"]
    """Whether the second threshold and the level before it are used."""
    scale: Float[Tensor, "n 1"]
    """A quarter of each node's range."""

    @classmethod
    def of(cls, nodes: Sequence[TwoValued], scales: Mapping[str, float], device: torch.device) -> "_Staircases":
        def tensor(rows: Sequence[object]) -> Tensor:
            return torch.tensor(rows, device=device)

        return cls(
            tensor([split_node(x.name)[1] for x in nodes]),
            tensor([[x.threshold, x.threshold if x.second is None else x.second] for x in nodes]),
            tensor([[x.low, x.high if x.middle is None else x.middle, x.high] for x in nodes]),
            tensor([x.middle is not None for x in nodes]),
            tensor([[max(scales[x.name], 1e-12)] for x in nodes]),
        )

    def moved(self, thresholds: Float[Tensor, "n 2"], levels: Float[Tensor, "n 3"]) -> "_Staircases":
        """With thresholds and levels moved by so many times the scale; unused ones go with their neighbours."""
        t, y = self.thresholds + self.scale * thresholds, self.levels + self.scale * levels
        second = torch.where(self.three, torch.maximum(t[:, 1], t[:, 0]), t[:, 0])
        middle = torch.where(self.three, y[:, 1], y[:, 2])
        return replace(
            self, thresholds=torch.stack([t[:, 0], second], 1), levels=torch.stack([y[:, 0], middle, y[:, 2]], 1)
        )

    def __call__(self, x: Float[Tensor, "... width"], width: float) -> Float[Tensor, "... width"]:
        """The site with these nodes in steps that are `width` times the scale wide; 0 for sharp ones."""
        over = x[..., self.index].unsqueeze(-1) - self.thresholds
        above = torch.sigmoid(over / (width * self.scale)) if width else (over >= 0).to(x.dtype)
        value = self.levels[:, 0] + (above * self.levels.diff(dim=-1)).sum(dim=-1)
        return x.index_copy(-1, self.index, value.to(x.dtype))

    def steps(self, nodes: Sequence[TwoValued]) -> Iterator[TwoValued]:
        """The nodes that it was made of, with its values."""
        for node, (first, second), (low, middle, high) in zip(
            nodes, self.thresholds.tolist(), self.levels.tolist(), strict=True
        ):
            between = {} if node.middle is None else {"second": second, "middle": middle}
            yield TwoValued(name=node.name, threshold=first, low=low, high=high, **between)


def _by_site(steps: Mapping[str, TwoValued]) -> dict[str, list[TwoValued]]:
    found: dict[str, list[TwoValued]] = {}
    for name, step in steps.items():
        found.setdefault(split_node(name)[0], []).append(step)
    return found


def binarise(bound: Bound, learn: PairBatch, test: PairBatch, *, seed: int = 0) -> Binarised:
    """Replace each node of the circuit alone by a step between two values (Gao et al. 2025, appendix).

    Node by node, in order of computation, the threshold is found that leaves the lowest loss on `learn`; the
    two values are the means below and above it. From there thresholds and values of all nodes are trained together,
    with steps that are soft at first and sharp at the end. Nodes that do not survive it get a value in
    between, and are trained again. The loss is of `test`. A circuit that survives computes with features that are on
    or off.
    """
    seen = activations(bound, learn, alone=True)
    scales = {name: spread(x) for name, x in seen.items()}

    def loss(steps: Mapping[str, TwoValued]) -> float:
        return _losses(bound, learn, steps, scales)[0].mean().item()

    two = _better(loss, _searched(bound, seen, loss), lambda steps: _trained(bound, learn, steps, scales, seed))
    failed = _failed(two, loss)
    three = {name: _with_middle(step, seen[name]) if name in failed else step for name, step in two.items()}
    best = two
    if failed:
        best = min((two, three, _trained(bound, learn, three, scales, seed)), key=loss)
    losses, right = _losses(bound, test, best, scales)
    found = estimate(losses, seed=seed)
    of_two = found if best is two else estimate(_losses(bound, test, two, scales)[0], seed=seed)
    return Binarised(
        loss=found,
        loss_before=_losses(bound, test, {}, scales)[0].mean().item(),
        accuracy=right,
        nodes=tuple(best.values()),
        loss_of_two=of_two.value,
        failed=failed,
    )


def spread(values: np.ndarray) -> float:
    """By what a node's thresholds and values are measured: a quarter of their range, since a node that rarely fires has
    a small standard deviation."""
    return float(np.nanmax(values) - np.nanmin(values)) / 4


def _better(
    loss: Callable[[Mapping[str, TwoValued]], float],
    start: dict[str, TwoValued],
    train: Callable[[dict[str, TwoValued]], dict[str, TwoValued]],
) -> dict[str, TwoValued]:
    """The steps at the start, or what training makes of them."""
    return min((start, train(start)), key=loss) if start else start


def _searched(
    bound: Bound, seen: Mapping[str, np.ndarray], loss: Callable[[Mapping[str, TwoValued]], float]
) -> dict[str, TwoValued]:
    """The best threshold of a few for each node, one after the other."""
    steps: dict[str, TwoValued] = {}
    for name in bound.circuit.node_names:
        tried = [{**steps, name: step} for step in _steps(name, seen[name])]
        if tried:
            steps = min(tried, key=loss)
    return steps


def _steps(name: str, values: np.ndarray) -> Iterator[TwoValued]:
    x = values[np.isfinite(values)]
    for share in SHARES if x.max() > x.min() else ():
        threshold = float(x.min() + share * (x.max() - x.min()))
        below, above = x[x < threshold], x[x >= threshold]
        yield TwoValued(name=name, threshold=threshold, low=float(below.mean()), high=float(above.mean()))


def _failed(steps: Mapping[str, TwoValued], loss: Callable[[Mapping[str, TwoValued]], float]) -> tuple[str, ...]:
    """Nodes whose own values, among the steps of the others, lower the loss too much."""
    whole = loss(steps)
    without = ({other: step for other, step in steps.items() if other != name} for name in steps)
    return tuple(name for name, rest in zip(steps, without, strict=True) if whole - loss(rest) > TOO_MUCH)


def _with_middle(step: TwoValued, values: np.ndarray) -> TwoValued:
    """A step whose wider side is cut once more, in the middle of the values there."""
    x = values[np.isfinite(values)]
    below, above = x[x < step.threshold], x[x >= step.threshold]
    wide = below if below.std() * len(below) > above.std() * len(above) else above
    cut = float(np.median(np.unique(wide)))
    first, second = sorted((step.threshold, cut))
    parts = [x[x < first], x[(x >= first) & (x < second)], x[x >= second]]
    low, middle, high = (float(part.mean()) if len(part) else cut for part in parts)
    return TwoValued(name=step.name, threshold=first, low=low, high=high, second=second, middle=middle)


def _changes(stairs: Mapping[str, _Staircases], width: float) -> Changes:
    def at(site: str) -> Callable[[Tensor], Tensor]:
        return lambda x: stairs[site](x, width)

    return lambda start, stop, tokens: {site: at(site) for site in stairs}


def _trained(
    bound: Bound, learn: PairBatch, start: Mapping[str, TwoValued], scales: Mapping[str, float], seed: int
) -> dict[str, TwoValued]:
    """Steps after training: Adam on the task loss, while soft steps turn sharp."""
    nodes, device = _by_site(start), bound.model.device
    stairs = {site: _Staircases.of(steps, scales, device) for site, steps in nodes.items()}
    moves = {site: (torch.zeros_like(x.thresholds), torch.zeros_like(x.levels)) for site, x in stairs.items()}
    learned = [move.requires_grad_() for both in moves.values() for move in both]
    optimiser = torch.optim.Adam(learned, lr=RATE, betas=(0.9, 0.95))
    pairs, generator = len(learn.last) // 2, np.random.default_rng(seed)

    def moved() -> dict[str, _Staircases]:
        return {site: x.moved(*moves[site]) for site, x in stairs.items()}

    with frozen_weights(bound.model), torch.enable_grad():
        for width in np.geomspace(SOFTEST, HARDEST, ROUNDS).tolist():
            chosen = np.sort(generator.permutation(pairs)[:TRAINING_PAIRS])
            batch = learn.take((2 * chosen[:, None] + [0, 1]).flatten())
            logits = torch.cat(list(logits_by_chunk(bound.model, batch, bound.alone, changes=_changes(moved(), width))))
            answers = bound.circuit.calibration(pick_answers(logits, batch))
            optimiser.zero_grad()
            task_loss(answers, correct_of(batch, answers.device)).backward()
            optimiser.step()
    with torch.no_grad():
        ended = [step for site, x in moved().items() for step in x.steps(nodes[site])]
    by_name = {step.name: step for step in ended}
    return {name: by_name[name] for name in start}


def _losses(
    bound: Bound, batch: PairBatch, steps: Mapping[str, TwoValued], scales: Mapping[str, float]
) -> tuple[Tensor, float]:
    """Losses per prompt with sharp steps, and the accuracy."""
    stairs = {site: _Staircases.of(x, scales, bound.model.device) for site, x in _by_site(steps).items()}
    logits = pick_answers(final_logits(bound.model, batch, bound.alone, changes=_changes(stairs, 0.0)), batch)
    logits = bound.circuit.calibration(logits)
    return losses_of(logits, batch), accuracy(logits, correct_of(batch))
