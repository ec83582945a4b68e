"""`steer`: change what a sparse node would change, in the dense model, and see whether its answer turns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.config import STRENGTHS
from sparsecircuits.bridges.directions import Norms, dense_change, read_channel, residual_norms
from sparsecircuits.errors import UserError
from sparsecircuits.models.hooks import intervene, record
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.nodes.donors import Donors, on_donors
from sparsecircuits.nodes.narrow import logits_at
from sparsecircuits.nodes.task_loss import pick_answers
from sparsecircuits.seeds import checked_seed
from sparsecircuits.tasks import PairBatch, Task

Toward = Literal["left", "right"]
REFERENCE_PAIRS = 64
"""Training pairs that residual norms and the means of the dense model's conditions are taken over."""
PAPER: dict[str, tuple[tuple[float, float], ...]] = {
    "single_double_quote": ((0.01, 0.0036), (0.05, 0.085), (0.08, 0.45), (0.126, 0.94), (0.158, 0.99)),
    "while_true_colon": ((0.0, 4e-5), (0.5, 0.011), (1.0, 0.16)),
}
"""(strength, probability) as read off Figure 9 of Gao et al. 2025, by task."""


class Steered(TypedDict):
    """Mean probability of the counterfactual answer over the whole vocabulary, at each strength."""

    dense_id: str
    sparse_id: str
    task: str
    toward: Toward
    answer: str
    nodes: list[str]
    split: str
    prompts: int
    strengths: list[float]
    steered: list[float]
    """The dense model, steered from the sparse nodes."""
    steered_between: list[float]
    """The same, of the two answers alone: how far the choice between them turns, where both are unlikely."""
    sparse: list[float]
    """The sparse model, with the same change made at the nodes themselves."""
    dense_means: list[float]
    """The dense model, with the difference of its own mean reads of the two conditions at the prompts' last tokens
    added there, at the same sites: a steering vector."""
    counterfactual: float
    """The dense model on the prompts whose answer it is."""
    paper: list[tuple[float, float]]


class Controls(TypedDict):
    """The same probability where nothing should come of it. Each list is one draw's curve."""

    random_nodes: list[list[float]]
    """Steered from as many other nodes of the same sites."""
    random_directions: list[list[float]]
    """With random directions of the same norm, token by token."""


class Steering(Steered, Controls):
    """What is steered, and its controls."""


@dataclass(frozen=True)
class Reference:
    """What holds whichever nodes a task's prompts are steered from: training pairs, and how large both models' residual
    streams are on them."""

    bridge: Bridge
    pairs: PairBatch
    norms: Norms
    dense_id: str
    sparse_id: str
    _differences: dict[str, Float[Tensor, " D"]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, bridge: Bridge, task: Task, seed: int = 0) -> Self:
        """Of the first `REFERENCE_PAIRS`, or as many as the task has."""
        pairs = task.encode(task.draw("train", REFERENCE_PAIRS, seed))
        norms = residual_norms(bridge, _ids(bridge, pairs.tokens), torch.from_numpy(pairs.real))
        return cls(bridge, pairs, norms, content_hash(bridge.dense), content_hash(bridge.sparse))

    @torch.no_grad()
    def mean_differences(self, sites: Sequence[str], answer: int) -> dict[str, Float[Tensor, " D"]]:
        """By site, the mean of the dense model's reads at the last tokens of prompts with this answer, less that of the
        others. A site is measured once."""
        missing = [site for site in sites if site not in self._differences]
        if missing:
            self._differences.update(_mean_differences(self.bridge.dense, self.pairs, missing))
        return {site: self._differences[site] * (1 if answer else -1) for site in sites}


@torch.no_grad()
def steer(
    bridge: Bridge,
    task: Task,
    nodes: Sequence[str],
    *,
    toward: Toward = "right",
    strengths: Sequence[float] = STRENGTHS,
    split: str = "held_out",
    n_pairs: int = 32,
    controls: int = 8,
    seed: int = 0,
) -> Steering:
    """Steer the dense model from sparse nodes, prompt by prompt and token by token.

    Each prompt's counterpart is the other one of its pair. The difference of a node's activation between the two, at
    each token, times the node's direction in the dense model (`directions.direction`) times the strength, is added to
    what the dense model reads there (Gao et al. 2025, section 5). nodes: reads of the residual stream. toward: the side
    whose answer is to be given; prompts of the other side are steered.

    Raises UserError for a node that is no read of the residual stream, or too few other nodes for the controls.
    """
    reference = Reference.of(bridge, task, seed)
    steered = NodeSteering(bridge, task, nodes, task.batch(split, n_pairs, seed), reference, toward=toward, split=split)
    without = steered.controls(strengths, controls, seed)
    return {**steered.curves(strengths), **without}


class NodeSteering:
    """Some prompts that the dense model is steered on, from some nodes of the sparse one (see `steer`).

    pairs: the prompts and their counterparts, whatever they are; split: what is said of them. Raises UserError for a
    node that is no read of the residual stream.
    """

    @torch.no_grad()
    def __init__(
        self,
        bridge: Bridge,
        task: Task,
        nodes: Sequence[str],
        pairs: PairBatch,
        reference: Reference,
        *,
        toward: Toward,
        split: str,
    ) -> None:
        self.bridge, self.task, self.split, self.toward = bridge, task, split, toward
        self.chosen = list(dict.fromkeys(read_channel(bridge, node) for node in nodes))
        if not self.chosen:
            raise UserError("name at least one node to steer from")
        self.sites = list(dict.fromkeys(site for site, _ in self.chosen))
        self.answer = 1 if toward == "right" else 0
        self.pairs, self._reference = pairs, reference
        self.prompts = SteeredPrompts(bridge, pairs, np.arange(1 - self.answer, len(pairs.last), 2), self.answer)
        self.moved = self.prompts.moved(self.sites)
        self.change = dense_change(bridge, self.chosen, self.moved, reference.norms)

    @torch.no_grad()
    def curves(self, strengths: Sequence[float]) -> Steered:
        """Both models with the change, and the dense one with the difference of its own means."""
        bridge, prompts, answer = self.bridge, self.prompts, self.answer
        turned = [prompts.probability(bridge.dense, self.change, strength) for strength in strengths]
        own = {site: _only(self.moved[site], [c for place, c in self.chosen if place == site]) for site in self.sites}
        means = self._reference.mean_differences(list(self.change), answer)
        opposite = SteeredPrompts(bridge, self.pairs, np.arange(answer, len(self.pairs.last), 2), answer)
        return {
            "dense_id": self._reference.dense_id,
            "sparse_id": self._reference.sparse_id,
            "task": self.task.name,
            "toward": self.toward,
            "answer": self.task.answers[answer],
            "nodes": [f"{site}.{channel}" for site, channel in self.chosen],
            "split": self.split,
            "prompts": len(prompts.batch.last),
            "strengths": [float(strength) for strength in strengths],
            "steered": [whole for whole, _ in turned],
            "steered_between": [between for _, between in turned],
            "sparse": [prompts.probability(bridge.sparse, own, strength)[0] for strength in strengths],
            "dense_means": self._curve({site: prompts.at_last(mean) for site, mean in means.items()}, strengths),
            "counterfactual": opposite.probability(bridge.dense, {}, 0.0)[0],
            "paper": list(PAPER.get(self.task.name.removesuffix(".plain"), ())),
        }

    @torch.no_grad()
    def controls(self, strengths: Sequence[float], draws: int, seed: int = 0) -> Controls:
        """Other nodes and other directions, drawn at random. Raises UserError where there are too few other nodes."""
        rng, norms = np.random.default_rng(checked_seed(seed)), self._reference.norms
        others = [_others(self.bridge, self.chosen, rng) for _ in range(draws)]
        directions = [{site: _turned(added, rng) for site, added in self.change.items()} for _ in range(draws)]
        return {
            "random_nodes": [
                self._curve(dense_change(self.bridge, group, self.moved, norms), strengths) for group in others
            ],
            "random_directions": [self._curve(turned, strengths) for turned in directions],
        }

    def _curve(self, added: Mapping[str, Tensor], strengths: Sequence[float]) -> list[float]:
        return [self.prompts.probability(self.bridge.dense, added, strength)[0] for strength in strengths]


class SteeredPrompts:
    """Prompts of one side of some pairs, each with its counterpart, and the answer that they are steered to."""

    def __init__(self, bridge: Bridge, pairs: PairBatch, rows: np.ndarray, answer: int) -> None:
        self.bridge, self.answer = bridge, answer
        donors = Donors.of(pairs, pairs.take(np.arange(len(pairs.last)) ^ 1))
        self.batch = pairs.take(rows)
        self.donors = Donors(donors.batch.take(rows), donors.place[rows])
        self.ids, self.last = _ids(bridge, self.batch.tokens), _ids(bridge, self.batch.last)

    def moved(self, sites: Iterable[str]) -> dict[str, Float[Tensor, "n T Ds"]]:
        """What the sparse model's activations are on each prompt's counterpart, less what they are on the prompt."""
        wanted = list(sites)
        there = on_donors(self.bridge.sparse, wanted, self.donors)
        with record(self.bridge.sparse, wanted) as here:
            self.bridge.sparse(self.ids)
        return {site: there[site] - here[site] for site in wanted}

    def at_last(self, vector: Float[Tensor, " D"]) -> Float[Tensor, "n T D"]:
        """A vector at each prompt's last token, 0 elsewhere."""
        found = vector.new_zeros(*self.ids.shape, len(vector))
        found[torch.arange(len(self.last), device=vector.device), self.last] = vector
        return found

    @torch.no_grad()
    def probability(
        self, model: SparseTransformer, added: Mapping[str, Tensor], strength: float
    ) -> tuple[float, float]:
        """Mean probability of the answer at the prompts' ends, of the whole vocabulary and of the two answers alone.
        added: [n, T, D] by site, times the strength."""
        functions = {site: _adding(strength * change) for site, change in added.items()}
        with intervene(model, functions):
            logits = logits_at(model, self.ids, self.last, narrow=False).float()
        between = pick_answers(logits, self.batch).softmax(dim=-1)[:, self.answer]
        if self.batch.over_class:  # the two answers share all of the vocabulary
            return float(between.mean()), float(between.mean())
        whole = logits.softmax(dim=-1)[:, self.batch.answers[self.answer]]
        return float(whole.mean()), float(between.mean())


def _adding(change: Tensor) -> Callable[[Tensor], Tensor]:
    """What adds a change to the first channels of a read: position channels beside them stay."""

    def add(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., : change.shape[-1]] += change
        return x

    return add


def _ids(bridge: Bridge, values: np.ndarray) -> Int[Tensor, "..."]:
    return torch.from_numpy(values).to(bridge.dense.device)


def _only(moved: Float[Tensor, "n T D"], channels: Sequence[int]) -> Float[Tensor, "n T D"]:
    found = torch.zeros_like(moved)
    found[..., list(channels)] = moved[..., list(channels)]
    return found


def _others(bridge: Bridge, chosen: Sequence[tuple[str, int]], rng: np.random.Generator) -> list[tuple[str, int]]:
    """As many other nodes of each site, drawn at random."""
    found = []
    for site in dict.fromkeys(place for place, _ in chosen):
        taken = [channel for place, channel in chosen if place == site]
        left = np.setdiff1d(np.arange(bridge.sparse.config.d_model), taken)
        if len(left) < len(taken):
            raise UserError(f"{site} has too few other nodes to compare {len(taken)} with: name fewer")
        found += [(site, int(channel)) for channel in rng.choice(left, len(taken), replace=False)]
    return found


def _turned(change: Float[Tensor, "n T D"], rng: np.random.Generator) -> Float[Tensor, "n T D"]:
    """The same norms at each token, in one random direction."""
    drawn = torch.from_numpy(rng.standard_normal(change.shape[-1])).to(change)
    found: Tensor = change.norm(dim=-1, keepdim=True) * (drawn / drawn.norm())
    return found


def _mean_differences(
    dense: SparseTransformer, reference: PairBatch, sites: Sequence[str]
) -> dict[str, Float[Tensor, " D"]]:
    """By site, the mean of the dense model's reads at the last tokens of prompts with the second answer, less that of
    prompts with the first."""
    ids, last = (torch.from_numpy(x).to(dense.device) for x in (reference.tokens, reference.last))
    with record(dense, sites) as seen:
        dense(ids)
    sign = torch.from_numpy(np.where(reference.correct == 1, 1.0, -1.0)).to(dense.device)
    width, half = dense.config.d_model, len(reference.last) / 2
    return {site: (sign[:, None] * rows_at(seen[site], last)[:, 0, :width]).sum(dim=0).float() / half for site in sites}
