"""A circuit compiled: a forward pass of its nodes and edges alone, on prompts that are given later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsecircuits.circuits.intervention import Intervention
from sparsecircuits.errors import UserError
from sparsecircuits.models.names import split_node
from sparsecircuits.nodes.compact_forward import TokenRows, Walk, Watch
from sparsecircuits.nodes.streams import Prompts
from sparsecircuits.nodes.task_loss import chunks, correct_of, task_loss
from sparsecircuits.tasks import PairBatch

if TYPE_CHECKING:
    from sparsecircuits.circuits.circuit import Bound

KINDS = ("mean", "zero", "scale")
"""Interventions that a compiled circuit knows; `run_with` knows all."""


@dataclass(frozen=True)
class CompiledCircuit:
    """What `Circuit.compile` gives. It runs what the circuit's nodes and edges are of the model, at their cost; all
    else is folded into constants. The model's weights must not change while it lives."""

    bound: "Bound"
    _walk: Walk

    @classmethod
    def of(cls, bound: "Bound") -> "CompiledCircuit":
        """Raises UserError where nodes outside the circuit carry what they are on other prompts."""
        if bound.circuit.ablation == "resample":
            raise UserError("a circuit of resample ablation cannot be compiled: what it leaves out is no constant")
        model = bound.model
        rows = TokenRows.of(model, torch.arange(model.config.vocab_size, device=model.device))
        return cls(bound, Walk(model, bound.plan, rows, model.config.n_ctx))

    @property
    def nonzeros(self) -> int:
        """Weights that run, the unembedding's of the two answers not counted."""
        return sum(len(product.matrix) for product in self.bound.plan.products.values())

    @torch.no_grad()
    def logits(self, batch: PairBatch, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "n 2"]:
        """Scores of the two answers, calibrated as the circuit is: those of the gated model, to float32 rounding.

        interventions: on the circuit's nodes, of the kinds mean, zero and scale; as in `run_with`, the last one given
        for a node and its token counts, and what is done at one token is done after what is done at all. Raises
        UserError for others.
        """
        circuit, changes = self.bound.circuit, self._changes(interventions)
        found = []
        for _, _, chunk in chunks(batch):
            prompts = Prompts(self.bound.model, chunk)
            found.append(self._walk.logits(prompts, batch, watch=self._watch(changes, prompts)))
        return circuit.calibration(torch.cat(found).cpu())

    def loss(self, batch: PairBatch, interventions: Sequence[Intervention] = ()) -> float:
        """Mean cross-entropy of the two answers in nats."""
        return task_loss(self.logits(batch, interventions), correct_of(batch)).item()

    def _changes(self, interventions: Sequence[Intervention]) -> dict[str, list[Intervention]]:
        """By site, in the order in which they act. Raises UserError for those that a compiled circuit does not know."""
        kept = set(self.bound.circuit.node_names)
        last: dict[tuple[str, int | None], Intervention] = {}
        for change in interventions:
            if change.source is not None or change.kind not in KINDS:
                raise UserError(
                    f"a compiled circuit changes nodes by {', '.join(KINDS)}: run the model with `run_with` for others"
                )
            if change.target not in kept:
                raise UserError(f"the circuit has no node {change.target}: what it leaves out is compiled away")
            last[change.target, change.before_last] = change
        by_site: dict[str, list[Intervention]] = {}
        for change in sorted(last.values(), key=lambda change: change.before_last is not None):
            by_site.setdefault(split_node(change.target)[0], []).append(change)
        return by_site

    def _watch(self, changes: dict[str, list[Intervention]], prompts: Prompts) -> Watch:
        means = self.bound.space.split(self.bound.frozen)

        def apply(site: str, x: Tensor) -> Tensor:
            if site not in changes:
                return x
            x = x.clone()
            for change in changes[site]:
                channel = split_node(change.target)[1]
                place = int((self._walk.kept[site] == channel).nonzero()[0, 0])
                old = x[..., place]
                new = old * change.factor if change.kind == "scale" else torch.zeros_like(old)
                if change.kind == "mean":
                    new = torch.full_like(old, means[site][channel].item())
                x[..., place] = torch.where(where(change, old, prompts.last), new, old)
            return x

        return apply


def where(change: Intervention, x: Float[Tensor, "n T"], last: Int[Tensor, " n"]) -> Bool[Tensor, "n T"]:
    """The positions at which a change is made; where a narrow pass has the last one alone, x has that one."""
    if change.before_last is None or x.shape[1] == 1:
        return torch.full_like(x, not change.before_last, dtype=torch.bool)
    return torch.arange(x.shape[1], device=x.device)[None] == (last - change.before_last)[:, None]
