"""What a circuit that survives costs in edges, and how unique it is: a row a model and task.

    python benchmarks/survival.py pretrained:nano:while_return_true pretrained:versed:enumerate_range

Prunes each task under every ablation with one budget, the mildest first: at means, stochastic, adversarial,
resampled from the pair's other prompt. Then backs up the circuit at means: how many circuits share no more than a core,
and how much those of three seeds share. A JSON line a cell goes to docs/survival.jsonl as it is found, and the circuits
to --circuits; what is there already is not run again, so it can be stopped and called again. Then the table in
docs/faithfulness.md is written from these lines; with no task named, nothing but that.
"""

import argparse
import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import sparsecircuits as sc
from records import add_record, read_records
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.pruning.backups import backups
from sparsecircuits.pruning.config import PruneAblation, PruneConfig

DOCS = Path(__file__).parents[1] / "docs"
RECORDS, PAGE = DOCS / "survival.jsonl", DOCS / "faithfulness.md"
ABLATIONS: tuple[PruneAblation, ...] = ("mean", "stochastic", "adversarial", "resample")
"""From the mildest on; zero ablation is no stricter than means, and asks for another circuit."""
CELLS: tuple[tuple[str, ...], ...] = (("mean", "resample"), ("backups",), ("stochastic",), ("adversarial",))
"""In which order they run, over all rows: challenges cost many times what an ablation of everything does."""
BUDGET = PruneConfig(steps=100, pairs=16, eval_pairs=32, lr=1e-2, restarts=0, edge_steps=50)
"""Of every cell, so that edges may be compared along a row; smaller circuits are found with more of it."""
TARGET = 0.15
MOST, SEEDS = 4, 3
assert set(ABLATIONS) == set(get_args(PruneAblation)) - {"zero"}


def circuit_cell(
    model: sc.SparseTransformer, task: sc.Task, means: Any, ablation: PruneAblation, path: Path
) -> dict[str, Any]:
    """Nodes, edges and held-out loss (nats, calibrated) of the circuit that is pruned under an ablation. The circuit is
    saved at `path`. Where none holds the target, `words` say why."""
    try:
        found = sc.prune(model, task, TARGET, config=dataclasses.replace(BUDGET, ablation=ablation), means=means)
    except sc.UserError as error:
        return {"words": str(error)}
    found.save(path)
    hardening, losses = found.found_by.hardening, found.losses
    assert losses is not None
    cell = {"nodes": len(found.nodes), "edges": len(found.edges), "loss": round(losses.circuit, 4)}
    if hardening is not None:
        cell |= {"rounds": hardening.rounds, "worst": round(hardening.worst, 4), "held": hardening.held}
    return cell


def backup_cell(model: sc.SparseTransformer, task: sc.Task, means: Any, path: Path) -> dict[str, Any]:
    """How many circuits share no more than a core, the first of which is saved at `path`; that core; and what circuits
    of other seeds share with it."""
    first = sc.Circuit.load(path)
    record = backups(model, task, TARGET, config=BUDGET, means=means, first=first, most=MOST, seeds=SEEDS).record
    shared = record.overlap
    return {
        "ways": [[len(way.nodes), len(way.edges), round(way.loss, 4)] for way in record.ways],
        "core": len(record.core),
        "exhausted": record.exhausted,
        "jaccard_nodes": None if shared is None else round(shared.nodes, 3),
        "jaccard_edges": None if shared is None else round(shared.edges, 3),
    }


def run(name: str, task_name: str, cells: tuple[str, ...], out: Path, circuits: Path) -> None:
    """The cells of a row that are not there yet."""
    done = {record["cell"] for record in read_records(out, model=name, task=task_name)}
    missing = [cell for cell in cells if cell not in done]
    if not missing:
        return
    model = sc.load_model(name)
    task, means = sc.get_task(task_name, model.tokenizer), training_means(model)
    folder = circuits / name.replace(":", "-") / task_name
    folder.mkdir(parents=True, exist_ok=True)
    for cell in missing:
        began = time.process_time()
        if cell == "backups":
            first = folder / "mean.json"
            if not first.exists():  # no circuit at means, or it lies on another machine
                continue
            found = backup_cell(model, task, means, first)
        else:
            [ablation] = [ablation for ablation in ABLATIONS if ablation == cell]
            found = circuit_cell(model, task, means, ablation, folder / f"{cell}.json")
        seconds = round(time.process_time() - began, 1)
        add_record(out, {"model": name, "task": task_name, "cell": cell, **found, "cpu_seconds": seconds})


def _edges(cell: dict[str, Any] | None) -> str:
    """Nodes and edges; in brackets where fresh subsets still break the circuit, and how badly."""
    if cell is None:
        return ""
    if "edges" not in cell:
        return "none"
    size = f"{cell['nodes']}, {cell['edges']}"
    return size if cell.get("held", True) else f"({size}; {cell['worst']:.2f})"


def _backed_up(cell: dict[str, Any] | None) -> list[str]:
    if cell is None:
        return ["", "", ""]
    ways = ("" if cell["exhausted"] else "at least ") + str(len(cell["ways"]))
    shared = "–" if cell["jaccard_nodes"] is None else f"{cell['jaccard_nodes']:.2f}, {cell['jaccard_edges']:.2f}"
    return [ways, str(cell["core"]), shared]


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown, a row a model and task, in the order in which they were begun."""
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for record in records:
        rows.setdefault((record["model"], record["task"]), {})[record["cell"]] = record
    header = ["model", "task", *ABLATIONS, "circuits", "core", "seeds share"]
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    for (model, task), cells in rows.items():
        shown = [_edges(cells.get(ablation)) for ablation in ABLATIONS]
        yield "| " + " | ".join([model, task, *shown, *_backed_up(cells.get("backups"))]) + " |"


def write(records: list[dict[str, Any]], page: Path = PAGE) -> None:
    """Put the table between its marks on the page."""
    text = page.read_text(encoding="utf-8")
    between, written = r"(?s)(<!-- survival -->\n).*(<!-- end of survival -->)", "\n".join(table(records))
    text = re.sub(between, lambda found: f"{found[1]}\n{written}\n\n{found[2]}", text)
    page.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="MODEL:TASK")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--circuits", type=Path, default=Path("survival"))
    given = parser.parse_args()
    for cells in CELLS:
        for name in given.tasks:
            model, _, task = name.rpartition(":")
            run(model, task, cells, given.out, given.circuits)
    write(read_records(given.out))


if __name__ == "__main__":
    main()
