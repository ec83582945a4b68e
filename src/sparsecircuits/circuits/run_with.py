"""Ablate, scale or patch nodes and edges, in the whole model or in a circuit alone.

An edge's change reaches its target alone: the target's sum gets weight * (new - old) of the source, and every
other reader of the source sees what it saw before.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsecircuits.circuits.circuit import Bound, Circuit
from sparsecircuits.circuits.compiled import where
from sparsecircuits.circuits.intervention import Intervention, Scope
from sparsecircuits.errors import UserError
from sparsecircuits.models.hooks import intervene, record
from sparsecircuits.models.sites import split_node, split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.donors import Donors, on_donors
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.narrow import is_narrow, logits_at
from sparsecircuits.nodes.recording import head_pattern
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.nodes.topology import join_between
from sparsecircuits.seeds import checked_seed
from sparsecircuits.tasks import PairBatch


@dataclass(frozen=True)
class Outcome:
    """What a run gave. logits: [n, vocab] at each prompt's last token; activations: [n, T, width] by site."""

    logits: Float[Tensor, "n vocab"]
    activations: dict[str, Tensor] = field(default_factory=dict)


Taken = Mapping[str, Mapping[str, Tensor]]
"""Per kind (patch, resample): activations [n, T] by node on donors, in the place of those of the prompts that run, at
the positions that the pass has there."""
Kept = dict[tuple[str, str], Tensor]
"""Activations [n, T] on donors by kind and node, at every position; no change of the prompts reaches them."""


@torch.no_grad()
def run_with(
    model: SparseTransformer,
    circuit: Circuit | Bound,
    batch: PairBatch,
    interventions: Sequence[Intervention] = (),
    *,
    scope: Scope = "model",
    nodes: Sequence[str] | None = None,
    patch: PairBatch | None = None,
    pool: PairBatch | None = None,
    seed: int = 0,
    watch: str | Iterable[str] = (),
    kept: Kept | None = None,
) -> Outcome:
    """Run prompts with interventions; the last one given for a node or an edge, and for its token, counts. What is
    done at one token alone is done after what is done at all of them.

    circuit: who runs one often gives it bound, `circuit.on(model)`: what the two say together is then read once.
    scope: the whole model, or the circuit alone (nodes outside frozen; `nodes` are the kept ones, by default
    the circuit's). patch: the prompts that "patch" takes values from, one per prompt of `batch` (default: the
    other side of each pair). pool: where "resample" draws from (default: `batch`, never the prompt itself). Both take
    values position by position, as `nodes.donors.counterparts` says.
    watch: sites to record, by name or by a regular expression that a whole name must match.
    kept: where who runs the same prompts often, with all else but the interventions the same, keeps what the circuit's
    nodes do on their donors.

    Raises UserError for a node or an edge that the model lacks, or when there is nothing to draw from.
    """
    checked_seed(seed)
    bound = circuit if isinstance(circuit, Bound) else circuit.on(model)
    if bound.model is not model:
        raise ValueError("the circuit is bound to another model than the one that runs")
    space, frozen = bound.space, bound.frozen
    check_targets(model, space, interventions)
    # Edges of the last layer may want every position; and so may who watches.
    narrow = not watch and all(change.source is None for change in interventions)
    gating = _gating(bound, batch, nodes, patch) if scope == "circuit" else None
    more = () if kept is None else bound.circuit.node_names
    taken = _taken(model, gating, interventions, batch, patch, pool, seed, {} if kept is None else kept, more)
    last = _ids(model, batch.last)
    if narrow:
        taken = {kind: _narrowed(values, model.config.n_layer, last) for kind, values in taken.items()}
    with contextlib.ExitStack() as stack:
        if gating is not None:
            stack.enter_context(gating.over(model, batch, narrow=narrow))
        stack.enter_context(intervened(model, interventions, space.split(frozen), taken, last))
        seen = stack.enter_context(record(model, watch)) if watch else {}
        logits = logits_at(model, _ids(model, batch.tokens), last, narrow=narrow).float()
    return Outcome(logits, dict(seen))


def _gating(bound: Bound, batch: PairBatch, nodes: Sequence[str] | None, patch: PairBatch | None) -> Gating:
    """The circuit alone, or some nodes of the model; where prompts are no pairs, `patch` has their others."""
    gating = bound.alone
    if nodes is not None:
        gating = replace(gating, gates=bound.space.mask(list(nodes)).float())
    if gating.ablation == "resample" and (patch is not None or len(batch.last) % 2):
        gating = replace(gating, donors=Donors.of(batch, paired(batch, patch)))
    return gating


def answer_logits(circuit: Circuit, outcome: Outcome, answers: tuple[int, int], scope: Scope) -> Float[Tensor, "n 2"]:
    """Logits of the two answers; of a circuit alone they are calibrated, as in `circuit_logits`."""
    logits = outcome.logits[:, list(answers)]
    return circuit.calibration(logits) if scope == "circuit" else logits


def check_targets(model: SparseTransformer, space: NodeSpace, interventions: Sequence[Intervention]) -> None:
    """Raise UserError for a node that the model lacks, or an edge without a weight."""
    for change in interventions:
        space.mask([change.target, change.changed])
        if change.source is not None and edge_weight(model, change.source, change.target) == 0:
            raise UserError(f"the model has no edge {change.source} → {change.target}")


def edge_weight(model: SparseTransformer, source: str, target: str) -> float:
    """The weight between two nodes; 0 where none joins them."""
    (source_site, column), (target_site, row) = split_node(source), split_node(target)
    join = join_between(model, source_site, target_site)
    return 0.0 if join is None else join.weight[row, column].item()


@contextlib.contextmanager
def intervened(
    model: SparseTransformer,
    interventions: Sequence[Intervention],
    means: Mapping[str, Tensor],
    taken: Taken,
    last: Int[Tensor, " n"],
) -> Iterator[None]:
    """While open, nodes and edges are changed. means: [width] by site; taken: see `Taken`; last: position of each
    prompt's last token."""
    ordered = sorted(interventions, key=lambda change: change.before_last is not None)
    at_nodes = {(change.target, change.before_last): change for change in ordered if change.source is None}
    at_edges = {
        (change.source, change.target, change.before_last): change for change in ordered if change.source is not None
    }
    by_site: dict[str, list[Intervention]] = {}
    for change in at_nodes.values():
        by_site.setdefault(split_node(change.target)[0], []).append(change)

    def at(site: str, changes: list[Intervention]) -> Callable[[Tensor], Tensor]:
        def apply(x: Tensor) -> Tensor:
            x = x.clone()
            for change in changes:
                index = split_node(change.target)[1]
                old = x[..., index]
                new = _new_value(change, old, means, taken)
                x[..., index] = torch.where(where(change, old, last), new, old)
            return x

        return apply

    with contextlib.ExitStack() as stack:
        stack.enter_context(intervene(model, {site: at(site, changes) for site, changes in by_site.items()}))
        for change in at_edges.values():
            stack.enter_context(_edge_changed(model, change, means, taken, last))
        yield


def _new_value(
    change: Intervention, old: Float[Tensor, "n T"], means: Mapping[str, Tensor], taken: Taken
) -> Float[Tensor, "n T"]:
    if change.kind == "mean":
        site, index = split_node(change.changed)
        return torch.full_like(old, means[site][index].item())
    if change.kind == "zero":
        return torch.zeros_like(old)
    if change.kind == "scale":
        return old * change.factor
    return taken[change.kind][change.changed].to(old)


@contextlib.contextmanager
def _edge_changed(
    model: SparseTransformer,
    change: Intervention,
    means: Mapping[str, Tensor],
    taken: Taken,
    last: Int[Tensor, " n"],
) -> Iterator[None]:
    """Add weight * (new - old) to the output of the linear map that the edge lies in."""
    assert change.source is not None
    (site, column), (target_site, row) = split_node(change.source), split_node(change.target)
    layer, kind = split_site(site)
    assert layer is not None
    join = join_between(model, site, target_site)
    assert join is not None  # what `check_targets` lets pass has a weight
    weight, through_attention = join.weight[row, column].item(), kind == "attn.v"
    pattern = "|".join(rf"{layer}\.attn\.{letter}" for letter in "qkv")
    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(record(model, pattern)) if through_attention else {}

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            old = seen[site][..., column] if through_attention else inputs[0][..., column]
            moved = (_new_value(change, old, means, taken) - old) * where(change, old, last)
            if through_attention:  # what the head carries of the value, with the pattern that it has
                head = column // model.config.d_head
                moved = (head_pattern(model, seen, layer, head) @ moved.unsqueeze(-1)).squeeze(-1)
            out = out.clone()
            out[..., join.offset + row] += weight * moved
            return out

        handle = join.linear.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def _taken(
    model: SparseTransformer,
    gating: Gating | None,
    interventions: Sequence[Intervention],
    batch: PairBatch,
    patch: PairBatch | None,
    pool: PairBatch | None,
    seed: int,
    kept: Kept,
    more: Sequence[str],
) -> dict[str, dict[str, Tensor]]:
    """What patched and resampled nodes take (see `Taken`), at every position: on donors that run gated as the prompts
    do. What is not yet kept is, and that of `more` nodes with it, for it takes one pass all the same."""
    found: dict[str, dict[str, Tensor]] = {}
    for kind in ("patch", "resample"):
        names = list(dict.fromkeys(change.changed for change in interventions if change.kind == kind))
        if not names:
            continue
        if any((kind, name) not in kept for name in names):
            other = paired(batch, patch) if kind == "patch" else drawn(batch, pool, seed)
            places = {name: split_node(name) for name in (*names, *more)}
            sites = sorted({site for site, _ in places.values()})
            with _gated(model, gating, other, batch):
                values = on_donors(model, sites, Donors.of(batch, other))
            kept.update({(kind, name): values[site][..., index].clone() for name, (site, index) in places.items()})
        found[kind] = {name: kept[kind, name] for name in names}
    return found


def _gated(
    model: SparseTransformer, gating: Gating | None, batch: PairBatch, other: PairBatch
) -> contextlib.AbstractContextManager[None]:
    """Passes over a batch gated; off nodes that take values from other prompts take them from `other`."""
    if gating is None:
        return contextlib.nullcontext()
    donors = Donors.of(batch, other) if gating.ablation == "resample" else None
    return replace(gating, donors=donors).over(model, batch)


def _narrowed(
    values: Mapping[str, Float[Tensor, "n T"]], n_layer: int, last: Int[Tensor, " n"]
) -> dict[str, Float[Tensor, "n S"]]:
    """Values by node, at the positions that a narrow pass has there."""
    at_last = last[:, None]
    return {name: x.gather(1, at_last) if is_narrow(split_node(name)[0], n_layer) else x for name, x in values.items()}


def paired(batch: PairBatch, patch: PairBatch | None) -> PairBatch:
    """The prompts that "patch" takes values from. Raises UserError where there are none."""
    if patch is not None:
        if len(patch.last) != len(batch.last):
            raise UserError(f"{len(batch.last)} prompts cannot be patched from {len(patch.last)}")
        return patch
    if len(batch.last) % 2:
        raise UserError("a prompt without its pair: say which prompt to patch from")
    return batch.take(np.arange(len(batch.last)) ^ 1)


def drawn(batch: PairBatch, pool: PairBatch | None, seed: int) -> PairBatch:
    """A random prompt for each, that "resample" takes values from. Raises UserError where there is no other."""
    source, rng = pool or batch, np.random.default_rng(seed)
    wanted, size = len(batch.last), len(source.last)
    if size < (2 if pool is None else 1):
        raise UserError("no other prompt to resample from")
    if pool is not None:
        return source.take(rng.integers(0, size, wanted))
    return source.take((np.arange(size) + rng.integers(1, size, wanted)) % size)


def _ids(model: SparseTransformer, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(model.device)
