"""Does the card tell a true circuit from nothing, and from what a model can do without meaning it, whatever the seed?

    python benchmarks/verdicts.py RUN [--task NAME] [--seeds N] [--out FILE]

For each seed, on the circuit that RUN holds for a task: the verdict of the full card on the true task (null controls
pruned with that seed, losses on prompts drawn with it), and what the card says of circuits that are none:

- the nonsense task, and the network with its weights permuted. Pruning finds nothing there, so the true circuit's nodes
  stand in, with all nonzero weights between them and a calibration fitted to the nonsense;
- the answers in a cipher, which the model can tell apart and never says: the circuit that pruning finds for them;
- random nodes, as many in each site and joined, on the true task.

A JSON line a seed goes to --out; seeds that are there already are not run again. Then the counts: how often a null was
called distinguishable, of how many that the model can do, and how often the true task was not.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import sparsecircuits as sc
from records import add_record, read_records
from sparsecircuits.circuits.losses import measure
from sparsecircuits.faithfulness.card.verdict import judge
from sparsecircuits.faithfulness.measures.runs import final_logits
from sparsecircuits.faithfulness.measures.said import Said, said
from sparsecircuits.faithfulness.null_tasks import Unsaid, loss_of_model, nonsense_task
from sparsecircuits.faithfulness.nulls import joined_nodes, null_controls, permuted_network, pruned_size
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.runs import circuit_path, circuits_folder

NULL = "not distinguishable from null"
KINDS = ("nonsense", "permuted", "cipher", "random")
PROMPTS = 64
"""Pairs on which it is measured whether the model says the answers."""


def answers_said(model: sc.SparseTransformer, task: sc.Task, seed: int) -> Said:
    """How likely the whole model finds the task's right answers."""
    batch = task.encode(task.draw("held_out", PROMPTS, seed))
    return said(final_logits(model, batch), batch)


def verdict_on(model: sc.SparseTransformer, task: sc.Task, nodes: list[str], seed: int) -> str:
    """What the quick card says of these nodes, calibrated on the task."""
    circuit = circuit_of(model, task, nodes)
    found, _ = judge(circuit, measure(model, circuit, task, seed=seed), None, answers_said(model, task, seed))
    return found


def of_cipher(model: sc.SparseTransformer, circuit: sc.Circuit, task: sc.Task, seed: int) -> str | None:
    """The verdict on what pruning finds for answers in a cipher; None where the model cannot do them."""
    bound, cipher = circuit.on(model), Unsaid.of(model, task).cipher(seed)
    if cipher is None or loss_of_model(model, cipher) > circuit.target_loss:
        return None
    found = pruned_size(model, cipher, bound.frozen, circuit.target_loss, circuit.ablation)
    return None if found.kept is None else verdict_on(model, cipher, bound.space.names(found.kept), seed)


def verdicts(model: sc.SparseTransformer, circuit: sc.Circuit, task: sc.Task, seed: int, prune: bool) -> dict[str, Any]:
    """The verdicts of one seed, and the sizes of the nulls. prune: whether the true task's nulls are pruned; otherwise
    its verdict is that of the quick card."""
    bound, began = circuit.on(model), time.process_time()
    nulls = null_controls(bound, task, seed=seed) if prune else None
    true, _ = judge(circuit, measure(model, circuit, task, seed=seed), nulls, answers_said(model, task, seed))
    found: dict[str, Any] = {"seed": seed, "true": true}
    if nulls is not None:
        found["true_edges"] = nulls.true.n_edges
        found["nulls"] = {null.name: [null.n_edges, round(null.best_loss, 4)] for null in nulls.nulls}
    names = list(circuit.node_names)
    found["nonsense"] = verdict_on(model, nonsense_task(task, seed), names, seed)
    found["permuted"] = verdict_on(permuted_network(model, seed), task, names, seed)
    found["cipher"] = of_cipher(model, circuit, task, seed)
    everywhere = edges_between(model, bound.space, torch.ones_like(bound.kept))
    generator = torch.Generator().manual_seed(seed)
    drawn = joined_nodes(bound.kept, bound.space.slices.values(), everywhere, generator)
    found["random"] = verdict_on(model, task, bound.space.names(drawn), seed)
    return {**found, "cpu_seconds": round(time.process_time() - began, 1)}


def main() -> None:
    """Run what is missing, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--task", default="single_double_quote")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="leave out the prunings of the true task's nulls")
    parser.add_argument("--out", type=Path, default=Path("verdicts.jsonl"))
    given = parser.parse_args()
    model = sc.load_model(given.run)
    folder = folder_of(given.run) if is_pretrained(given.run) else Path(given.run)
    circuit = sc.Circuit.load(circuit_path(circuits_folder(folder), given.task))
    task = sc.get_task(given.task, model.tokenizer)
    same = {"model": given.run, "task": given.task, "pruned": not given.quick}
    rows = read_records(given.out, **same)
    for seed in sorted(set(range(given.seeds)) - {row["seed"] for row in rows}):
        rows.append({**same, **verdicts(model, circuit, task, seed, prune=not given.quick)})
        add_record(given.out, rows[-1])
    wrongly = sum(row["true"] == NULL for row in rows)
    print(f"true: {NULL!r} for {wrongly} of {len(rows)} seeds (should be 0)")
    for name in KINDS:
        tried = [row[name] for row in rows if row[name] is not None]
        passed = sum(found != NULL for found in tried)
        print(f"{name}: not called null for {passed} of {len(tried)} seeds (should be at most 1 of 20)")


if __name__ == "__main__":
    main()
