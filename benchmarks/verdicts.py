"""Does the card tell a true circuit from nothing, whatever the seed?

    python benchmarks/verdicts.py RUN [--task NAME] [--seeds N]

For each seed, on the circuit that RUN holds for a task: the verdict of the full card (null controls pruned with that
seed, losses on prompts drawn with it), the verdict on the nonsense task, and the verdict on the network with its
weights permuted. Pruning finds no circuit for the last two, so the true circuit's nodes stand in, with all nonzero
weights between them and a calibration fitted to the nonsense. Prints a line of JSON per seed, then the counts.
"""

import argparse
import json
from pathlib import Path

import sparsecircuits as sc
from sparsecircuits.circuits.losses import measure
from sparsecircuits.faithfulness.card.verdict import judge
from sparsecircuits.faithfulness.null_tasks import nonsense_task
from sparsecircuits.faithfulness.nulls import null_controls, permuted_network
from sparsecircuits.planted.faults import circuit_of
from sparsecircuits.runs import circuit_path, circuits_folder

NULL = "not distinguishable from null"


def verdicts(model: sc.SparseTransformer, circuit: sc.Circuit, task: sc.Task, seed: int) -> dict:
    """The three verdicts of one seed, and how many times smaller than its nulls the true circuit is."""
    nulls = null_controls(circuit.on(model), task, seed=seed)
    true, _ = judge(circuit, measure(model, circuit, task, seed=seed), nulls)
    found = {"seed": seed, "true": true, "true_edges": nulls.true.n_edges}
    found["nulls"] = {null.name: [null.n_edges, round(null.best_loss, 4)] for null in nulls.nulls}
    nonsense, network = nonsense_task(task, seed), permuted_network(model, seed)
    for name, which, prompts in (("nonsense", model, nonsense), ("permuted", network, task)):
        planted = circuit_of(which, prompts, list(circuit.node_names))
        found[name], _ = judge(planted, measure(which, planted, prompts, seed=seed), None)
    return found


def main() -> None:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", default="single_double_quote")
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    model = sc.load_model(given.run)
    circuit = sc.Circuit.load(circuit_path(circuits_folder(given.run), given.task))
    task = sc.get_task(given.task, model.tokenizer)
    rows = []
    for seed in range(given.seeds):
        rows.append(verdicts(model, circuit, task, seed))
        print(json.dumps(rows[-1]), flush=True)
    for name in ("true", "nonsense", "permuted"):
        print(f"{name}: {NULL!r} for {sum(row[name] == NULL for row in rows)} of {len(rows)} seeds")


if __name__ == "__main__":
    main()
