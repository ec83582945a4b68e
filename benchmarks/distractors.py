"""Circuits found on prompts without distractors, tried on prompts with them: how many were circuits of a shortcut?

python benchmarks/distractors.py RUN [TASK ...]

For each task (by default all that the model does with distractors) a circuit is pruned on `TASK.plain`, and measured on
its held-out prompts and on those of `TASK`, calibrated anew for these. Prints a table as Markdown.
"""

import sys

import sparsecircuits as sc
from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.losses import measure
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.tasks import PLAIN


def moved(model: SparseTransformer, circuit: Circuit, task: sc.Task) -> Circuit:
    """The same circuit, as one of another task, with a scale and a shift for its prompts."""
    anew = fitted(model, training_pairs(task), circuit.gating(model))
    return circuit.model_copy(update={"task": task.name, "scale": anew.scale, "shift": anew.shift})


def main(run: str, names: list[str]) -> None:
    model = sc.load_model(run)
    means = training_means(model)
    print("| task | plain: model | circuit | nodes, edges | with distractors: model | accuracy | circuit | accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    held = found = 0
    for name in names or [task.name for task in sc.list_tasks()]:
        task, plain = sc.get_task(name, model.tokenizer), sc.get_task(name + PLAIN, model.tokenizer)
        try:
            circuit = sc.prune(model, plain, means=means)
        except sc.UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        before, after = circuit.losses, measure(model, moved(model, circuit, task), task)
        assert before is not None
        if (after.full_calibrated or 0) > circuit.target_loss:
            print(f"{name}: the model has {after.full_calibrated:.3f} with distractors", file=sys.stderr)
            continue
        if before.circuit <= circuit.target_loss:
            found += 1
            held += after.circuit <= circuit.target_loss
        print(
            f"| {name} | {before.full_calibrated:.3f} | {before.circuit:.3f} | {len(circuit.nodes)}, "
            f"{len(circuit.edges)} | {after.full_calibrated:.3f} | {after.accuracy_full:.3f} | {after.circuit:.3f} | "
            f"{after.accuracy:.3f} |",
            flush=True,
        )
    print(f"\n{held} of {found} circuits that hold the target without distractors hold it with them.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
