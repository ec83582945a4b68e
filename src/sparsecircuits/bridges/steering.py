"""`steer`: change what a sparse node would change, in the dense model, and see whether its answer turns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.config import STRENGTHS
from sparsecircuits.bridges.directions import dense_change, read_channel, residual_norms
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


class Steering(TypedDict):
    """Mean probability of the counterfactual answer over the whole vocabulary, at each strength. Each list of a control
    is one draw's curve."""

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
    random_nodes: list[list[float]]
    """Steered from as many other nodes of the same sites."""
    random_directions: list[list[float]]
    """With random directions of the same norm, token by token."""
    counterfactual: float
    """The dense model on the prompts whose answer it is."""
    paper: list[tuple[float, float]]


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
    rng = np.random.default_rng(checked_seed(seed))
    chosen = list(dict.fromkeys(read_channel(bridge, node) for node in nodes))
    if not chosen:
        raise UserError("name at least one node to steer from")
    sites = list(dict.fromkeys(site for site, _ in chosen))
    batch, reference = task.batch(split, n_pairs, seed), task.encode(task.draw("train", REFERENCE_PAIRS, seed))
    answer = 1 if toward == "right" else 0
    steered = Steered(bridge, batch, np.arange(1 - answer, len(batch.last), 2), answer)
    norms = residual_norms(bridge, _ids(bridge, reference.tokens), torch.from_numpy(reference.real))
    moved = steered.moved(sites)
    change = dense_change(bridge, chosen, moved, norms)
    means = _mean_differences(bridge.dense, reference, sites, answer)
    others = [_others(bridge, chosen, rng) for _ in range(controls)]

    def curve(added: Mapping[str, Tensor]) -> list[float]:
        return [steered.probability(bridge.dense, added, strength)[0] for strength in strengths]

    turned = [steered.probability(bridge.dense, change, strength) for strength in strengths]
    own = {site: _only(moved[site], [c for place, c in chosen if place == site]) for site in sites}
    return {
        "dense_id": content_hash(bridge.dense),
        "sparse_id": content_hash(bridge.sparse),
        "task": task.name,
        "toward": toward,
        "answer": task.answers[answer],
        "nodes": [f"{site}.{channel}" for site, channel in chosen],
        "split": split,
        "prompts": len(steered.batch.last),
        "strengths": [float(strength) for strength in strengths],
        "steered": [whole for whole, _ in turned],
        "steered_between": [between for _, between in turned],
        "sparse": [steered.probability(bridge.sparse, own, strength)[0] for strength in strengths],
        "dense_means": curve({site: steered.at_last(means[site]) for site in sites}),
        "random_nodes": [curve(dense_change(bridge, group, moved, norms)) for group in others],
        "random_directions": [
            curve({site: _turned(added, rng) for site, added in change.items()}) for _ in range(controls)
        ],
        "counterfactual": Steered(bridge, batch, np.arange(answer, len(batch.last), 2), answer).probability(
            bridge.dense, {}, 0.0
        )[0],
        "paper": list(PAPER.get(task.name.removesuffix(".plain"), ())),
    }


class Steered:
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
    dense: SparseTransformer, reference: PairBatch, sites: Sequence[str], answer: int
) -> dict[str, Float[Tensor, " D"]]:
    """By site, the mean of the dense model's reads at the last tokens of prompts with this answer, less that of the
    others."""
    ids, last = (torch.from_numpy(x).to(dense.device) for x in (reference.tokens, reference.last))
    with record(dense, sites) as seen:
        dense(ids)
    sign = torch.from_numpy(np.where(reference.correct == answer, 1.0, -1.0)).to(dense.device)
    width, half = dense.config.d_model, len(reference.last) / 2
    return {site: (sign[:, None] * rows_at(seen[site], last)[:, 0, :width]).sum(dim=0).float() / half for site in sites}
