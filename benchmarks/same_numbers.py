"""What a fixed small run computes, to the last digit: to be the same before and after code is moved.

    python benchmarks/same_numbers.py > before.txt      then move, then the same into after.txt, and diff the two

Losses of tasks on the shipped nano model; and on the hand-made model, with a second way to its answers: circuits
found by `prune`, with edges pruned and without; the quick card and the full one, with small prunings of the nulls;
interventions; the viewer's payload and the weights of all nodes. One JSON line for each, and the SHA-256 of each and of
all. What cannot be the same is left out: seconds. Numbers are comparable on one machine, with one set of libraries and
as many threads.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import BaseModel

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.nodes.ablation_values import pretraining_means
from sparsecircuits.planted.models import two_way_model
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.viewer.payload import picture_payload
from sparsecircuits.viewer.weights import node_weights

SCORED = ("single_double_quote", "bracket_counting", "while_return_true")
TASK, TARGET = "single_double_quote.plain", 0.15
PRUNINGS = {
    "learned gates": PruneConfig(steps=40, pairs=8, eval_pairs=16, lr=2e-2, restarts=1, edge_steps=10),
    "learned gates, nodes alone": PruneConfig(steps=20, pairs=8, eval_pairs=8, lr=4e-2, restarts=0, prune_edges=False),
    "resample ablation": PruneConfig(
        steps=20, pairs=8, eval_pairs=8, lr=4e-2, restarts=0, ablation="resample", edge_steps=10
    ),
    "eap-ig, zero ablation": PruneConfig(
        steps=2, pairs=8, eval_pairs=8, restarts=0, method="eap-ig", ablation="zero", prune_edges=False
    ),
}
NULLS = PruneConfig(steps=10, pairs=8, eval_pairs=16, lr=2e-2)


def results() -> Iterator[tuple[str, Any]]:
    """(name, what was computed) of each part of the run."""
    shipped = sc.load_model("pretrained:nano")
    for name in SCORED:
        yield f"losses of {name}", losses(shipped, sc.get_task(name, tokenizer=shipped.tokenizer))
    model = two_way_model(Tokenizer.default(), 3.0)
    text = "".join(file.text for file in generate_files(8, seed=3))
    tokens = torch.tensor(model.tokenizer.encode(text)).numpy()
    task = sc.get_task(TASK, tokenizer=model.tokenizer)
    means = pretraining_means(model, tokens)
    found = {name: sc.prune(model, task, TARGET, config=config, means=means) for name, config in PRUNINGS.items()}
    for name, circuit in found.items():
        yield f"circuit by {name}", circuit
    circuit = found["learned gates"]
    yield "quick card", sc.faithfulness(model, circuit, task)
    yield "full card", sc.faithfulness(model, circuit, task, full=True, budget=NULLS)
    yield "interventions", interventions(model, circuit, task)
    yield "payload", picture_payload(model, circuit, task)
    yield "weights of nodes", {node.name: node_weights(model, node.name) for node in circuit.nodes}


def losses(model: sc.SparseTransformer, task: sc.Task) -> dict[str, float]:
    """The whole model's loss in nats on some held-out pairs, by its definition, and the mean logits of both answers."""
    batch = task.batch("held_out", 32)
    with torch.no_grad():
        tokens, last = torch.from_numpy(batch.tokens), torch.from_numpy(batch.last)
        logits = model(tokens)[torch.arange(len(last)), last][:, list(batch.answers)]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.correct)).item()
    return {"loss": loss, "first": logits[:, 0].mean().item(), "second": logits[:, 1].mean().item()}


def interventions(model: sc.SparseTransformer, circuit: sc.Circuit, task: sc.Task) -> dict[str, list[float]]:
    """Mean logits of the answers with every node, and every edge, of a circuit changed in each way, one at a time."""
    batch, bound, found = task.batch("held_out", 8), circuit.on(model), {}
    places = [{"target": node.name} for node in circuit.nodes]
    places += [{"target": edge.target, "source": edge.source} for edge in circuit.edges]
    for place in places:
        for kind in ("mean", "zero", "resample", "scale", "patch"):
            for scope in ("model", "circuit"):
                change = sc.Intervention(kind=kind, factor=0.5 if kind == "scale" else 0.0, **place)
                logits = sc.run_with(model, bound, batch, [change], scope=scope).logits
                key = f"{kind} {place.get('source', '')} {place['target']} in the {scope}"
                found[key] = logits[:, list(batch.answers)].double().mean(dim=0).tolist()
    return found


def plain(value: Any) -> Any:
    """A value as JSON has it, without what differs from run to run."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items() if key not in ("seconds", "checksum")}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Print all results and their hashes."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    whole = hashlib.sha256()
    for name, value in results():
        line = json.dumps(plain(value), sort_keys=True)  # floats by their repr, which tells every digit
        whole.update(line.encode())
        print(f"{name}\n{line}\n{hashlib.sha256(line.encode()).hexdigest()}\n", flush=True)
    print(f"all {whole.hexdigest()}")


if __name__ == "__main__":
    main()
