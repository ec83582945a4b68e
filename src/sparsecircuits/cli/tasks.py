"""The command `tasks`: list tasks, sample pairs, score a model on prompts or on real code, measure shortcuts."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths
from sparsecircuits.cli.show import print_json, print_table, print_text, progress
from sparsecircuits.errors import UserError

if TYPE_CHECKING:
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.tasks import Task


def tasks(command: args.Tasks) -> None:
    """List tasks, sample pairs, or score a model."""
    from sparsecircuits.tasks import list_tasks

    if command.name and command.task_file:
        raise UserError(f"name a task or give --task-file, not both ({command.name}, {command.task_file})")
    if command.corpus is not None and command.model is None:
        raise UserError("--corpus needs --model")
    check_paths(models=[command.model], corpus=command.corpus, task_file=command.task_file)
    if command.shortcuts:
        if command.model is not None:
            raise UserError("--shortcuts is about the prompts alone: leave --model out")
        _shortcuts(command)
        return
    if command.model is not None:
        _score(command)
        return
    chosen = _named(command) or list_tasks()
    records: list[dict[str, Any]] = [_described(task) for task in chosen]
    one = command.name or command.task_file
    if one:
        pairs = [
            dataclasses.asdict(pair)
            for pair in chosen[0].pairs(command.split, 4 if command.n is None else command.n, command.seed)
        ]
        records[0] |= {"split": command.split, "pairs": pairs}
    beside = [] if one else [_described(task) for task in list_tasks(beside=True) if task not in chosen]
    if command.json:
        print_json({"tasks": records, **({"beside": beside} if beside else {})})
    elif one:
        a, b = chosen[0].answers
        rows = [[repr(pair["left"]), repr(pair["right"])] for pair in pairs]
        print_table(f"{chosen[0].name}: {chosen[0].description}", [f"→ {a!r}", f"→ {b!r}"], rows)
    else:
        rows = [[r["name"], r["description"], " · ".join(map(repr, r["answers"]))] for r in records + beside]
        print_table("", ["task", "what to predict", "answers"], rows)
        print_text(
            f"Beside the paper's {len(records)}, and run only when named: {', '.join(r['name'] for r in beside)}"
        )


def _named(command: args.Tasks) -> "list[Task]":
    """The task that was named or given as a file, bound to the shipped tokenizer; none for all."""
    from sparsecircuits.tasks import get_task, own_task

    if command.task_file:
        return [own_task(command.task_file)]
    return [get_task(command.name)] if command.name else []


def _described(task: "Task") -> dict[str, Any]:
    return {"name": task.name, "description": task.description, "answers": list(task.answers)}


def _shortcuts(command: args.Tasks) -> None:
    from sparsecircuits.tasks import get_task, list_tasks
    from sparsecircuits.tasks.shortcuts import SCORED_PAIRS, mean_of, shortcuts

    chosen = _named(command) or [get_task(task.name) for task in list_tasks()]
    with progress("shortcuts") as update:
        found = []
        for place, task in enumerate(chosen):
            update(place / len(chosen), task.name)
            found.append(shortcuts(task, SCORED_PAIRS if command.n is None else command.n, command.seed))
    means = mean_of(found) if len(found) > 1 else {}
    if command.json:
        print_json({"tasks": [s.record() for s in found], **({"mean_of_best": means} if means else {})})
        return
    columns = ["task", "pairs", "one token", "which", "count", "last 1", "last 2", "last 3", "bag", "by definition"]
    rows = [
        [s.name, s.pairs, s.token, repr(s.by_token), s.count, *s.last, s.bag, "yes" if s.by_definition else ""]
        for s in found
    ]
    print_table("accuracy of shortcuts on held-out prompts", columns, rows, (1, 2, 4, 5, 6, 7, 8))
    for which, value in means.items():
        print_text(f"mean of the best shortcut, {which.replace('_', ' ')}: {value:.3f}")


def _score(command: args.Tasks) -> None:
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.nodes.task_score import score_on_task

    assert command.model is not None
    model = load_model(command.model)
    names = [command.name] if command.name else None
    chosen, skipped = chosen_tasks(model, names, command.task_file)
    n = 256 if command.n is None else command.n
    if command.corpus is not None:
        _score_on_corpus(command, model, chosen, skipped, n)
        return
    rows = [*(score_on_task(model, task, command.split, n, command.seed) for task in chosen), *skipped]
    if command.json:
        print_json({"tasks": rows})
    else:
        columns = ["name", "split", "pairs", "loss", "loss_calibrated", "order", "accuracy", "skipped"]
        header = ["name", "split", "pairs", "loss", "calibrated", "in order", "accuracy", "skipped"]
        print_table(str(command.model), header, [[r.get(c) for c in columns] for r in rows], (2, 3, 4, 5, 6))


def _score_on_corpus(
    command: args.Tasks,
    model: "SparseTransformer",
    chosen: "list[Task]",
    skipped: list[dict[str, str]],
    n: int,
) -> None:
    from sparsecircuits.faithfulness.measures.corpus import score_on_corpus

    assert command.corpus is not None
    if n < 1:
        raise UserError(f"n must be at least 1, got {n}")
    result = score_on_corpus(model, chosen, command.corpus, n)
    tasks = [*result["tasks"], *skipped]
    if command.json:
        print_json({**result, "tasks": tasks})
        return
    measures = ("balanced_accuracy", "balanced_accuracy_of_classes", "balanced_accuracy_shifted", "cue_accuracy")
    rows = []
    for row in tasks:
        places, cue = " · ".join(map(str, row.get("places", ()))), row.get("cue")
        rule = f"{cue!r}: {row.get('cue_says')!r}" if cue is not None else row.get("skipped")
        rows.append([row["name"], places, *map(row.get, measures), rule])
    columns = ["task", "places", "two answers", "classes", "shifted", "one token", "which: what it says"]
    title = f"balanced accuracy of {command.model} on {result['files']} files of {command.corpus}"
    print_table(title, columns, rows, (1, 2, 3, 4, 5))


def chosen_tasks(
    model: "SparseTransformer", names: list[str] | None, task_file: Path | None
) -> tuple[list["Task"], list[dict[str, str]]]:
    """The named tasks and that of a task file, bound to the model's tokenizer; with neither, all shipped ones.

    Then those that the tokenizer cannot express are not an error but the second list, with the reason.
    """
    from sparsecircuits.tasks import get_task, list_tasks, own_task

    chosen = [own_task(task_file, model.tokenizer)] if task_file else []
    if names or task_file:
        return [get_task(name, model.tokenizer) for name in names or []] + chosen, []
    skipped = []
    for task in list_tasks():
        try:
            chosen.append(get_task(task.name, model.tokenizer))
        except UserError as error:
            skipped.append({"name": task.name, "skipped": str(error)})
    return chosen, skipped
