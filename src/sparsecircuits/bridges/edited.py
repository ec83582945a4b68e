"""The folder that surgery makes: an ordinary run directory with its audit beside the weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from sparsecircuits.bridges.audit import PAIRS, TOKENS, Audit, TaskChange, audit, mean_change
from sparsecircuits.bridges.surgery import operation, switch_off_all
from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text
from sparsecircuits.interop.circuit_files import read_circuits
from sparsecircuits.interop.convert import save_model
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import circuit_path, circuits_folder

AUDIT_NAME = "audit.json"


class Edited(TypedDict):
    """What was done: tasks of the circuits by what was asked of them, how many nodes were folded into the biases of
    what reads them, into their own biases, or gated for good, and how many edges went into biases; and the audit."""

    remove: list[str]
    keep: list[str]
    spare: list[str]
    folded_at_readers: int
    folded_at_source: int
    gated: int
    edges: int
    audit: Audit
    mean_rise_of_other_tasks: float | None
    """Of the raw losses of all tasks but those whose circuits were named, in nats."""


def edit_into(
    model: SparseTransformer,
    out: Path,
    tokens: np.ndarray,
    *,
    remove: Sequence[Circuit] = (),
    keep: Sequence[Circuit] = (),
    spare: Sequence[Circuit] = (),
    n_pairs: int = PAIRS,
    max_tokens: int = TOKENS,
    report: Callable[[float, str], None] | None = None,
) -> Edited:
    """Edit a model (see `edit`), compare both on validation tokens and on all tasks, and write the edited one with
    audit.json and audit.md to a new folder. Raises UserError as `edit` does, and for a folder that is not empty."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out} is not empty: give a new folder")
    folded = switch_off_all(model, operation(model, remove=remove, keep=keep, spare=spare))
    found = audit(model, folded.model, tokens, n_pairs=n_pairs, max_tokens=max_tokens, report=report)
    asked = {name: [c.task for c in group] for name, group in (("remove", remove), ("keep", keep), ("spare", spare))}
    edited: Edited = {
        "remove": asked["remove"],
        "keep": asked["keep"],
        "spare": asked["spare"],
        "folded_at_readers": folded.at_readers,
        "folded_at_source": folded.at_source,
        "gated": folded.gated,
        "edges": folded.edges,
        "audit": found,
        "mean_rise_of_other_tasks": mean_change(found["tasks"], [*asked["remove"], *asked["keep"]]),
    }
    save_model(folded.model, out, "native")
    write_text(out / AUDIT_NAME, json.dumps(edited, indent=1) + "\n")
    write_text(out / "audit.md", as_markdown(edited))
    return edited


def circuits_of(model_folder: Path, given: Sequence[str], model: SparseTransformer) -> list[Circuit]:
    """The circuits that texts name: a path, which may hold several (a run, a folder of circuits), or the task of a
    circuit in the model's own folder. Raises UserError where there is none."""
    found = []
    for text in given:
        own = circuit_path(circuits_folder(model_folder), text)
        path = own if own.is_file() and not Path(text).exists() else text
        found += [file.to_run(model) for file in read_circuits(path)]
    return found


def as_markdown(edited: Edited) -> str:
    """The audit as a page."""
    found = edited["audit"]
    done = [f"{name} {', '.join(edited[name])}" for name in ("remove", "keep", "spare") if edited[name]]
    nodes = f"{edited['folded_at_readers'] + edited['folded_at_source']} nodes folded into biases, "
    nodes += f"{edited['gated']} gated, {edited['edges']} edges cut"
    rows = "\n".join(_row(change) for change in found["tasks"])
    skipped = "".join(f"\n- {row['task']} skipped: {row['skipped']}" for row in found["skipped"])
    rise = edited["mean_rise_of_other_tasks"]
    others = "" if rise is None else f"\n\nThe raw losses of the other tasks rose by {rise:.4f} nats on average."
    moved = found["val_loss_after"] / found["val_loss_before"] - 1
    return (
        f"# Audit of an edit: {'; '.join(done)}\n\n{nodes}. Model {found['model_before']} became "
        f"{found['model_after']}; {found['nonzeros_before']:,} nonzero weights became {found['nonzeros_after']:,}.\n\n"
        f"Validation loss {found['val_loss_before']:.4f} → {found['val_loss_after']:.4f} nats a token ({moved:+.2%}), "
        f"KL(before ‖ after) {found['kl']:.4f}, over {found['tokens']:,} tokens.{others}\n\n"
        "Losses in nats on held-out prompts; chance is 0.693.\n\n"
        "| task | raw before | after | calibrated before | after | accuracy before | after |\n"
        f"|---|---|---|---|---|---|---|\n{rows}\n{skipped}".rstrip()
        + "\n"
    )


def _row(change: TaskChange) -> str:
    figures: dict[str, Any] = dict(change)
    losses = ("loss_before", "loss_after", "calibrated_before", "calibrated_after")
    cells = [f"{figures[name]:.3f}" for name in losses]
    cells += [f"{figures[name]:.2f}" for name in ("accuracy_before", "accuracy_after")]
    return f"| {figures['task']} | {' | '.join(cells)} |"
