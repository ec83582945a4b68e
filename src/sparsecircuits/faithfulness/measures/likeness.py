"""Likeness: does the circuit compute what the model computes? Outputs, attention patterns, activations."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound, Circuit
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate, finite
from sparsecircuits.models.names import split_node
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.recording import head_pattern, recordings
from sparsecircuits.nodes.task_loss import pick_answers
from sparsecircuits.tasks import PairBatch


class Outputs(BaseModel):
    """How like the circuit's answers are to the model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kl_answers: Estimate
    """KL(model || circuit) over the two answers, in nats; 0 is equal."""
    kl_vocabulary: Estimate
    """KL(model || circuit) over all tokens, not calibrated; a circuit is not meant to know the others."""
    agreement: Estimate
    """Share of prompts on which both choose the same answer."""
    same_margin: float | None
    """Correlation over prompts of the two logit differences; 1 is a straight line."""


def kl(model: Float[Tensor, "n k"], circuit: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """KL(model || circuit) per prompt in nats, of logits; >= 0."""
    p, q = model.log_softmax(dim=-1), circuit.log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=-1)


def outputs(
    circuit: Circuit,
    whole: Calibration,
    batch: PairBatch,
    full: Float[Tensor, "n vocab"],
    alone: Float[Tensor, "n vocab"],
    seed: int = 0,
) -> Outputs:
    """Compare final logits of the whole model and of the circuit alone (KL: Conmy et al. 2023), each answer with its
    calibration; whole: the model's."""
    of_model = whole(pick_answers(full, batch))
    of_circuit = circuit.calibration(pick_answers(alone, batch))
    same = (of_model.argmax(dim=-1) == of_circuit.argmax(dim=-1)).float()
    margins = [x[:, 1] - x[:, 0] for x in (of_model, of_circuit)]
    return Outputs(
        kl_answers=estimate(kl(of_model, of_circuit), seed=seed),
        kl_vocabulary=estimate(kl(full, alone), seed=seed),
        agreement=estimate(same, seed=seed),
        same_margin=correlation(*(margin.double().numpy() for margin in margins)),
    )


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    if len(x) < 2 or x.std() < 1e-9 * (1 + abs(x.mean())) or y.std() < 1e-9 * (1 + abs(y.mean())):
        return None
    return finite(float(np.corrcoef(x, y)[0, 1]))


class NodeLikeness(BaseModel):
    """One kept node's activations in the circuit alone, against those in the whole model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    explained: float | None
    """1 - Σ(circuit - model)² / Σ(model - its mean)²: at most 1, which is equal; None if it does not vary."""
    correlation: float | None
    constant: bool
    """It does not vary over the task's prompts in the circuit: it is a bias."""


class HeadLikeness(BaseModel):
    """One head's attention pattern in the circuit alone, against that in the whole model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: str
    agreement: float
    """1 - total variation distance of the patterns at the last token, mean over prompts; between 0 and 1."""


class Internals(BaseModel):
    """How like the circuit's insides are to the model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: tuple[NodeLikeness, ...]
    heads: tuple[HeadLikeness, ...]
    explained: float | None
    """Mean over the nodes that vary, in the model and in the circuit."""
    attention: float | None
    """Mean over heads with a kept node."""


@dataclass(frozen=True)
class Seen:
    """What was recorded of one run. nodes: values at every real position, by node; patterns: [n, T] of the last
    token by head, padded with zeros."""

    nodes: dict[str, np.ndarray]
    patterns: dict[tuple[int, int], np.ndarray]


def internals(bound: Bound, batch: PairBatch) -> Internals:
    """Compare kept nodes' activations, and the patterns of heads with kept q, k or v channels, over all positions
    of the prompts. A circuit may reach the loss by other means than the model does; this shows it.
    """
    circuit = bound.circuit
    names, heads = circuit.node_names, sorted({(n.layer or 0, n.head) for n in circuit.nodes if n.head is not None})
    here, there = (_seen(bound, batch, names, heads, alone) for alone in (True, False))
    nodes = []
    for name in names:
        x, y = here.nodes[name], there.nodes[name]
        varies = y.std() > 1e-6 * (1 + abs(y.mean()))
        explained = 1 - float(((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()) if varies else None
        constant = bool(x.std() <= 1e-6 * (1 + abs(x.mean())))
        nodes.append(NodeLikeness(name=name, explained=explained, correlation=correlation(x, y), constant=constant))
    found = []
    for layer, head in heads:
        distance = 0.5 * np.abs(here.patterns[layer, head] - there.patterns[layer, head]).sum(axis=-1)
        found.append(HeadLikeness(head=f"{layer}.{head}", agreement=float(1 - distance.mean())))
    known = [node.explained for node in nodes if node.explained is not None and not node.constant]
    return Internals(
        nodes=tuple(nodes),
        heads=tuple(found),
        explained=float(np.mean(known)) if known else None,
        attention=float(np.mean([head.agreement for head in found])) if found else None,
    )


def _seen(
    bound: Bound,
    batch: PairBatch,
    names: list[str],
    heads: list[tuple[int, int]],
    alone: bool,
) -> Seen:
    places = [(name, *split_node(name)) for name in names]
    sites = {site for _, site, _ in places} | {f"{layer}.attn.{letter}" for layer, _ in heads for letter in "qk"}
    nodes: dict[str, list[np.ndarray]] = {name: [] for name in names}
    patterns: dict[tuple[int, int], list[np.ndarray]] = {head: [] for head in heads}
    model, width = bound.model, batch.tokens.shape[1]
    for chunk, seen in recordings(model, batch, sites, bound.alone if alone else None):
        for name, site, index in places:
            nodes[name].append(seen[site][..., index].double().cpu().numpy()[chunk.real])
        for layer, head in heads:
            rows = head_pattern(model, seen, layer, head)[torch.arange(len(chunk.last)), torch.from_numpy(chunk.last)]
            here = rows.double().cpu().numpy()
            patterns[layer, head].append(np.pad(here, ((0, 0), (0, width - here.shape[-1]))))
    return Seen(
        {name: np.concatenate(parts) for name, parts in nodes.items()},
        {head: np.concatenate(parts) for head, parts in patterns.items()},
    )
