"""Learned gates against the baselines: each ranks the nodes, everything after (size, clean-up, edges) is the same.

    python benchmarks/methods.py quickstart --tasks single_double_quote if_equals
    python benchmarks/methods.py quickstart --tasks single_double_quote if_equals --ranking-only

Writes one JSON line a circuit to --out as it goes (what is there already is skipped, so it can be stopped and called
again) and prints the table at the end.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any, get_args

import sparsecircuits as sc
from records import add_record, read_records
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.pruning.config import Method, PruneConfig
from sparsecircuits.pruning.discovery import prune
from sparsecircuits.pruning.discretise import smallest_prefix, top_nodes
from sparsecircuits.pruning.node_search import NodeSearch
from sparsecircuits.pruning.size_curve import curve_of, edges_at


def run(model: sc.SparseTransformer, means: Any, task: str, method: Method, target: float) -> dict[str, Any]:
    """Prune once. ranked: nodes of the smallest prefix of the ranking that holds the goal, before any clean-up."""
    record = {"task": task, "method": method, "target": target}
    try:
        circuit = prune(
            model, sc.get_task(task, model.tokenizer), target, config=PruneConfig(method=method), means=means
        )
    except TaskTooHard as error:
        return {**record, "words": str(error)}
    assert circuit.losses is not None
    return {
        **record,
        "ranked": circuit.found_by.ranked_size,
        "nodes": len(circuit.nodes),
        "edges": len(circuit.edges),
        "edges_at_target": edges_at(curve_of(circuit), target),
        "loss": round(circuit.losses.circuit, 4),
        "full": round(circuit.losses.full, 4),
        "seconds": circuit.found_by.seconds,
    }


def rank(model: sc.SparseTransformer, means: Any, task: str, method: Method, target: float) -> dict[str, Any]:
    """The smallest prefix of a ranking that holds the goal, on the worse of training and validation, as it is."""
    search = NodeSearch.of(model, sc.get_task(task, model.tokenizer), means, target, PruneConfig(method=method))
    began, tau = time.perf_counter(), search.ranking()
    size = smallest_prefix(tau, search.evaluate, search.goal)
    record = {"task": task, "method": method, "target": target, "ranked": size}
    if size is None:
        return {**record, "words": "no prefix holds the goal"}
    edges = search.evaluate.edges_between(top_nodes(tau, size))
    return {**record, "edges": len(edges), "seconds": round(time.perf_counter() - began, 2)}


def table(records: list[dict[str, Any]], tasks: list[str], methods: list[str]) -> str:
    """Markdown: a row a method, a column a task, and the geometric mean of its edges over those of learned gates."""
    found = {(r["method"], r["task"]): r for r in records}
    lines = [f"| method | {' | '.join(tasks)} | edges over learned's |", "|---" * (len(tasks) + 2) + "|"]
    for method in methods:
        cells, ratios = [], []
        for task in tasks:
            record = found.get((method, task), {})
            shown = "{ranked}: {nodes}, {edges}, {loss:.3f}" if "nodes" in record else "{ranked}, {edges}"
            cells.append("none" if "words" in record else shown.format(**record))
            ours = found.get(("learned", task), {})
            if record.get("edges") and ours.get("edges"):
                ratios.append(math.log(record["edges"] / ours["edges"]))
        mean = f"{math.exp(sum(ratios) / len(ratios)):.2f}" if ratios else "-"
        lines.append(f"| {method} | {' | '.join(cells)} | {mean} ({len(ratios)} tasks) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", choices=get_args(Method), default=list(get_args(Method)))
    parser.add_argument("--target-loss", type=float, default=0.15)
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    parser.add_argument("--ranking-only", action="store_true", help="no clean-up: the rankings themselves")
    arguments = parser.parse_args()
    records = read_records(arguments.out, target=arguments.target_loss)
    done = {(r["task"], r["method"]) for r in records}
    model = sc.load_model(arguments.model)
    means = training_means(model)
    for task in arguments.tasks:
        for method in arguments.methods:
            if (task, method) not in done:
                measure = rank if arguments.ranking_only else run
                records.append(measure(model, means, task, method, arguments.target_loss))
                add_record(arguments.out, records[-1])
    print("nodes of the ranking, edges\n" if arguments.ranking_only else "ranked nodes: nodes, edges, held-out loss\n")
    print(table(records, arguments.tasks, arguments.methods))


if __name__ == "__main__":
    main()
