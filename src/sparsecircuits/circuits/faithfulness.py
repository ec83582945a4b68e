"""The faithfulness card of a circuit: is it sufficient, is it necessary, compared with chance and with random
nodes. Every number recomputes from model and circuit."""

import json
import math
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from sparsecircuits.circuits.circuit import Circuit, Losses
from sparsecircuits.circuits.evaluation import frozen_logits, measure
from sparsecircuits.files import write_text
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.gates import NodeSpace
from sparsecircuits.pruning.objective import correct_of, task_loss
from sparsecircuits.tasks import Task

RANDOM_SETS = 5


class Report(BaseModel):
    """The card. Losses are binary cross-entropies in nats on the named split; chance is ln 2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    task: str
    model_name: str
    model_id: str
    ablation: str
    n_nodes: int
    n_edges: int
    target_loss: float
    holds_target: bool
    losses: Losses
    sufficiency: float
    """How much of the task the circuit alone does: (empty - circuit) / (empty - full); 1 is all of it."""
    necessity: float
    """How much of the task goes with the circuit: (ablated - full) / (ln 2 - full), at most 1."""
    random_ablated: float
    """Mean loss when as many random nodes of the same sites, outside the circuit, are frozen instead."""
    warnings: list[str]

    def save(self, path: str | Path) -> Path:
        """Write the JSON, and a Markdown page of the same name beside it."""
        path = Path(path)
        write_text(path.with_suffix(".md"), self.to_markdown() + "\n")
        return write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def to_markdown(self) -> str:
        """The card as a Markdown page."""
        x = self.losses
        rows = [
            ("circuit alone (sufficiency)", x.circuit, f"{self.sufficiency:.0%} of what the model does"),
            ("whole model", x.full, f"accuracy {x.accuracy_full:.1%}"),
            ("nothing (every node frozen)", x.empty, ""),
            ("all but the circuit (necessity)", x.ablated, f"{self.necessity:.0%} of the way to chance"),
            ("all but as many random nodes", self.random_ablated, f"mean of {RANDOM_SETS} draws"),
            ("chance", math.log(2), ""),
        ]
        table = "\n".join(f"| {name} | {loss:.4f} | {note} |" for name, loss, note in rows)
        warnings = "".join(f"\n- **{text}**" for text in self.warnings)
        return (
            f"# {self.task} in {self.model_name}\n\n"
            f"{self.n_nodes} nodes, {self.n_edges} edges; target loss {self.target_loss}"
            f" ({'held' if self.holds_target else 'missed'}).\n\n"
            f"| what runs | loss (nats) | |\n|---|---|---|\n{table}\n\n"
            f"Nodes outside are ablated ({self.ablation}); {2 * x.n_pairs} prompts of the "
            f"{x.split.replace('_', '-')} split, seed {x.seed}.{warnings}"
        )


def sufficiency(losses: Losses) -> float:
    """(empty - circuit) / (empty - full): 1 when the circuit does as well as the model, 0 when as badly as
    nothing; above 1 when calibration makes it better. NaN when the model is no better than nothing."""
    span = losses.empty - losses.full
    return (losses.empty - losses.circuit) / span if span > 0 else math.nan


def necessity(losses: Losses) -> float:
    """(ablated - full) / (ln 2 - full), at most 1: how far towards chance the model falls without the circuit
    ("inverse pruning", Gao et al. 2025). NaN when the model is no better than chance."""
    span = math.log(2) - losses.full
    return min(1.0, (losses.ablated - losses.full) / span) if span > 0 else math.nan


def random_nodes_like(circuit: Circuit, space: NodeSpace, generator: torch.Generator) -> torch.Tensor:
    """A mask [nodes] of as many random nodes per site as the circuit has there, none of them in it."""
    kept, chosen = circuit.kept(space), torch.zeros(space.size, dtype=torch.bool)
    for place in space.slices.values():
        outside = (~kept[place]).nonzero().flatten() + place.start
        wanted = min(int(kept[place].sum()), outside.numel())
        chosen[outside[torch.randperm(outside.numel(), generator=generator)[:wanted]]] = True
    return chosen


def faithfulness(model: SparseTransformer, circuit: Circuit, task: Task, *, seed: int = 0) -> Report:
    """Measure a circuit on the held-out split. Raises UserError when it belongs to another model."""
    losses = measure(model, circuit, task)
    batch = task.batch(losses.split, losses.n_pairs, losses.seed)
    correct = correct_of(batch, model.device)
    space, generator = NodeSpace.of(model.config), torch.Generator().manual_seed(seed)
    random_losses = [
        task_loss(frozen_logits(model, circuit, batch, random_nodes_like(circuit, space, generator)), correct).item()
        for _ in range(RANDOM_SETS)
    ]
    random_ablated = sum(random_losses) / len(random_losses)
    warnings = []
    if losses.circuit > circuit.target_loss:
        warnings.append(
            f"On held-out prompts the circuit misses its target: {losses.circuit:.3f} > {circuit.target_loss}."
        )
    if losses.ablated < 0.9 * math.log(2):
        warnings.append(
            f"Without the circuit the model still does the task in part (loss {losses.ablated:.3f}): "
            "other nodes can do it too."
        )
    return Report(
        task=circuit.task,
        model_name=circuit.model_name,
        model_id=circuit.model_id,
        ablation=circuit.ablation,
        n_nodes=len(circuit.nodes),
        n_edges=len(circuit.edges),
        target_loss=circuit.target_loss,
        holds_target=losses.circuit <= circuit.target_loss,
        losses=losses,
        sufficiency=sufficiency(losses),
        necessity=necessity(losses),
        random_ablated=random_ablated,
        warnings=warnings,
    )
