"""Interchange interventions and causal scrubbing: do the circuit's nodes carry what the circuit says they carry?"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound, Circuit
from sparsecircuits.faithfulness.measures.estimate import Estimate, estimate
from sparsecircuits.faithfulness.measures.likeness import correlation
from sparsecircuits.faithfulness.measures.runs import Changes, final_logits, losses_of, mean_of_draws
from sparsecircuits.faithfulness.measures.sufficiency import share
from sparsecircuits.models.names import split_node
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.donors import Donors, Matched
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.recording import recordings
from sparsecircuits.nodes.task_loss import correct_of, pick_answers
from sparsecircuits.tasks import PairBatch

MOST_DONORS = 6
"""Independent donors that the inputs of a scrubbed circuit are drawn from."""


class NodeFlip(BaseModel):
    """One node patched from the pair's other prompt: share of prompts whose answer turns around."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    circuit: float
    model: float


class Interchange(BaseModel):
    """Interchange interventions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flips_all: Estimate
    """All of the circuit's nodes patched at once in the whole model: share of answers that turn around."""
    accuracy: Estimate
    """Interchange accuracy: over nodes and prompts, share where the whole model, patched, chooses what the circuit,
    patched in the same way, chooses. 1/2 and less is chance."""
    effect_correlation: float | None
    """Correlation over nodes of how far a patch moves the logit difference in circuit and model."""
    nodes: tuple[NodeFlip, ...]


def interchange(
    bound: Bound,
    whole: Calibration,
    batch: PairBatch,
    *,
    most: int = 20,
    seed: int = 0,
) -> Interchange:
    """Patch each node, and then all, from the pair's other prompt (Geiger et al. 2021; Vig et al. 2020).

    What the circuit alone does under the patch is its prediction of what the whole model does. Up to `most` nodes
    are patched one at a time. whole: the whole model's calibration.
    """
    model, circuit, gating = bound.model, bound.circuit, bound.alone
    donors, correct = Donors.pairs(batch), correct_of(batch)
    names = circuit.node_names
    names = names if len(names) <= most else [names[i * len(names) // most] for i in range(most)]
    values = {alone: recorded(model, donors, circuit.node_names, gating if alone else None) for alone in (True, False)}

    def answers(patched: list[str], alone: bool) -> Tensor:
        changes = patch_with(dict.fromkeys(patched), lambda name: values[alone][name])
        logits = pick_answers(final_logits(model, batch, gating if alone else None, changes=changes), batch)
        return circuit.calibration(logits) if alone else whole(logits)

    before = {alone: answers([], alone) for alone in (True, False)}
    flips, same, moved = [], [], []
    for name in names:
        after = {alone: answers([name], alone) for alone in (True, False)}
        turned = {alone: _choice(after[alone]) != _choice(before[alone]) for alone in after}
        flips.append(
            NodeFlip(name=name, circuit=turned[True].float().mean().item(), model=turned[False].float().mean().item())
        )
        same.append((_choice(after[True]) == _choice(after[False])).float())
        toward = 1.0 - 2.0 * correct  # towards the other prompt's answer
        moved.append([(toward * (_margin(after[a]) - _margin(before[a]))).mean().item() for a in (True, False)])
    everything = (_choice(answers(circuit.node_names, False)) != _choice(before[False])).float()
    effects = np.array(moved).reshape(-1, 2).T
    return Interchange(
        flips_all=estimate(everything, seed=seed),
        accuracy=estimate(torch.stack(same).mean(dim=0), seed=seed) if same else Estimate(value=None),
        effect_correlation=correlation(*effects) if len(names) > 2 else None,
        nodes=tuple(flips),
    )


def _choice(logits: Float[Tensor, "n 2"]) -> Tensor:
    return logits.argmax(dim=-1)


def _margin(logits: Float[Tensor, "n 2"]) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def recorded(
    model: SparseTransformer, donors: Donors, names: list[str], gating: Gating | None
) -> dict[str, Float[Tensor, "n T"]]:
    """Nodes' activations on each prompt's donor, at the places that stand for the prompt's own. With a gating, in
    the gated run of the donors."""
    places = {name: split_node(name) for name in names}
    sites = {site for site, _ in places.values()}
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    start = 0
    for chunk, seen in recordings(model, donors.batch, sites, gating):
        rows = donors.place[start : start + len(chunk.last)]
        place = torch.from_numpy(np.ascontiguousarray(rows)).clamp(max=chunk.tokens.shape[1] - 1)
        start += len(chunk.last)
        for name, (site, index) in places.items():
            found[name].append(seen[site][..., index].cpu().gather(1, place))
    return {name: torch.cat(parts) for name, parts in found.items()}


def patch_with(names: Mapping[str, object], values: Callable[[str], Tensor]) -> Changes:
    """Changes that put given values [n, T] in the place of nodes' activations."""
    by_site: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        site, index = split_node(name)
        by_site.setdefault(site, []).append((index, name))

    def changes(start: int, stop: int, width: int) -> dict[str, Callable[[Tensor], Tensor]]:
        def at(nodes: list[tuple[int, str]]) -> Callable[[Tensor], Tensor]:
            def apply(x: Tensor) -> Tensor:
                x = x.clone()
                for index, name in nodes:
                    x[..., index] = values(name)[start:stop, :width].to(x)
                return x

            return apply

        return {site: at(nodes) for site, nodes in by_site.items()}

    return changes


class Scrubbing(BaseModel):
    """Causal scrubbing of the hypothesis that the circuit states."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Estimate
    """Nats; the circuit's calibration."""
    accuracy: Estimate
    kept: Estimate
    """(empty - scrubbed) / (empty - full): the share of the task that survives; 1 is all of it."""
    inputs: tuple[str, ...]
    """The nodes that the circuit reads the prompt with."""


def inputs_of(circuit: Circuit) -> list[str]:
    """Read nodes of channels that no earlier node of the circuit writes: there the prompt comes in."""
    written: set[int] = set()
    found = []
    for node in circuit.nodes:  # in order of computation
        reads = node.site in ("attn.act_in", "mlp.act_in", "final_resid")
        if reads and node.index not in written:
            found.append(node.name)
        if node.site.endswith("resid_delta"):
            written.add(node.index)
    return found


def causal_scrubbing(
    bound: Bound,
    batch: PairBatch,
    full: Float[Tensor, "n 2"],
    nothing_fair: Calibration,
    *,
    draws: int = 2,
    seed: int = 0,
) -> Scrubbing:
    """Resample all that the hypothesis says does not matter (Chan et al. 2022).

    The hypothesis: the answer depends on the prompt through the circuit alone, and the circuit reads from the
    prompt only which answer is right. So every node outside takes its activation from a random prompt of either
    class, and each node that the circuit reads with takes what it is, in the circuit alone, on another random prompt
    of the same class, independently of the others (from up to six donors). Stricter than resample ablation: what is
    lost here and not there, the circuit knows of the very prompt.

    full [n, 2]: the whole model's logits, calibrated; nothing_fair: the calibration of nothing.
    """
    model, circuit, gating = bound.model, bound.circuit, bound.alone
    matched, inputs = Matched.of(batch), inputs_of(circuit)
    losses, right, empty = [], [], []
    for draw in range(draws):
        outside = matched.draw(seed + 1000 * draw)
        values: dict[str, Tensor] = {}
        groups = [inputs[place::MOST_DONORS] for place in range(min(MOST_DONORS, len(inputs)))]
        for place, group in enumerate(groups):
            own = matched.draw(seed + 1000 * draw + 1 + place, same_class=True)
            values |= recorded(model, own, group, gating)
        changes = patch_with(values, values.__getitem__)
        logits = circuit.calibration(
            pick_answers(final_logits(model, batch, gating, donors=outside, changes=changes), batch)
        )
        losses.append(losses_of(logits, batch))
        right.append((_choice(logits) == correct_of(batch)).float())
        left = pick_answers(final_logits(model, batch, bound.nothing, donors=outside), batch)
        empty.append(losses_of(nothing_fair(left), batch))
    return Scrubbing(
        loss=estimate(mean_of_draws(losses), seed=seed),
        accuracy=estimate(mean_of_draws(right), seed=seed),
        kept=estimate(mean_of_draws(empty), mean_of_draws(losses), losses_of(full, batch), of=share, seed=seed),
        inputs=tuple(inputs),
    )
