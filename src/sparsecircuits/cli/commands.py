"""One function per command: call the library, print what it says."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths
from sparsecircuits.cli.show import Update, print_json, print_table, print_text, progress, say, silent
from sparsecircuits.errors import UserError
from sparsecircuits.training.status import Status, duration

if TYPE_CHECKING:
    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.data import TokenData
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.tasks import Task
    from sparsecircuits.training.config import TrainConfig
    from sparsecircuits.training.distributed import World


def quickstart(command: args.Quickstart) -> None:
    """From Python source to a circuit and its page."""
    from sparsecircuits.quickstart import run_quickstart

    result = run_quickstart(command.out, command.minutes, command.seed, progress, say)
    if command.json:
        print_json(result)
    else:
        from sparsecircuits.circuits.circuit import Circuit

        _print_circuit(Circuit.load(result["circuit"]))
        print_text(f"\nrun      {result['run']}\ncircuit  {result['circuit']}\npicture  {result['page']}")
    if command.open:
        _open_browser(Path(result["page"]).resolve().as_uri())


def train(command: args.Train) -> None:
    """Train into a run directory."""
    from sparsecircuits.models.transformer import count_parameters
    from sparsecircuits.training.distributed import joined
    from sparsecircuits.training.metrics import METRICS_NAME, read_metrics

    with joined() as world:
        model = _train(command.config, command.out, command.resume, world)
    if not world.is_first:
        return
    parameters, nonzeros = count_parameters(model)
    last = read_metrics(command.out / METRICS_NAME)[-1]
    result = {
        "run": str(command.out),
        "steps": last["step"],
        "val_loss": last["val_loss"],
        "parameters": parameters,
        "nonzeros": nonzeros,
        "seconds": last["seconds"],
    }
    if command.json:
        print_json(result)
        return
    print_text(
        f"{command.out}: {last['step']} steps in {duration(last['seconds'])}, validation loss "
        f"{last['val_loss']:.3f} nats a token, {nonzeros:,} of {parameters:,} weights nonzero"
    )


def _train(config: "TrainConfig", out: Path, resume: bool, world: "World") -> "SparseTransformer":
    from sparsecircuits.data import Tokenizer, prepare_tokens
    from sparsecircuits.training.hardware import auto_dtype
    from sparsecircuits.training.loop import train

    shown = progress if world.is_first else silent

    def prepare() -> "TokenData":
        with shown("corpus  ") as update:
            return prepare_tokens(
                config.data, Tokenizer.default(), progress=lambda done, total, label: update(done / total, label)
            )

    if world.is_first and config.dtype == "auto":
        say("dtype {} ({})".format(*auto_dtype(world.device())))
    with contextlib.ExitStack() as display:
        bars: list[Update] = []

        def report(status: Status) -> None:
            if not bars:  # once the corpus is done: two bars at a time are too many for a terminal
                bars.append(display.enter_context(shown("training")))
            bars[0](status.progress, status.describe())

        return train(config, out, resume=resume, tokens=prepare, report=report)


def evaluate(command: args.Eval) -> None:
    """Validation loss and statistics of a model."""
    from sparsecircuits.data import Tokenizer, prepare_tokens
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.models.statistics import model_statistics

    check_paths(models=[command.model], data=command.data)
    model = load_model(command.model)
    data = command.data or model.corpus
    if data is None:
        raise UserError("the model does not say what text it was trained on: give --data")
    tokens = prepare_tokens(data, model.tokenizer or Tokenizer.default())
    result = {
        "model": str(command.model),
        "data": data,
        **model_statistics(model, tokens.val, command.tokens),
    }
    if command.json:
        print_json(result)
        return
    rows = [[name.replace("_", " "), value] for name, value in result.items() if not isinstance(value, dict)]
    print_table("", ["", str(command.model)], rows, right=(1,))
    matrices = [[name, m["nonzeros"], m["size"], m["density"]] for name, m in result["matrices"].items()]
    print_table("matrices", ["name", "nonzeros", "size", "density"], matrices, right=(1, 2, 3))


def generate(command: args.Generate) -> None:
    """Continue a prompt."""
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.models.generation import generate

    text = generate(
        load_model(command.model),
        command.prompt,
        command.max_new_tokens,
        temperature=command.temperature,
        top_k=command.top_k,
        seed=command.seed,
    )
    if command.json:
        print_json({"prompt": command.prompt, "text": text})
    else:
        print_text(text)


def tasks(command: args.Tasks) -> None:
    """List tasks, sample pairs, or score a model."""
    from sparsecircuits.tasks import get_task, list_tasks, own_task

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
    if command.task_file:
        chosen = [own_task(command.task_file)]
    else:
        chosen = [get_task(command.name)] if command.name else list_tasks()
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


def _described(task: "Task") -> dict[str, Any]:
    return {"name": task.name, "description": task.description, "answers": list(task.answers)}


def _shortcuts(command: args.Tasks) -> None:
    from sparsecircuits.tasks import get_task, list_tasks, own_task
    from sparsecircuits.tasks.shortcuts import SCORED_PAIRS, mean_of, shortcuts

    if command.task_file:
        chosen = [own_task(command.task_file)]
    else:
        chosen = [get_task(name) for name in ([command.name] if command.name else [t.name for t in list_tasks()])]
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
    from sparsecircuits.circuits.scoring import score_on_task
    from sparsecircuits.interop.loading import load_model

    assert command.model is not None
    model = load_model(command.model)
    names = [command.name] if command.name else None
    chosen, skipped = _chosen_tasks(model, names, command.task_file)
    n = 256 if command.n is None else command.n
    if command.corpus is not None:
        _score_on_corpus(command, model, chosen, skipped, n)
        return
    rows = [score_on_task(model, task, command.split, n, command.seed) for task in chosen] + skipped
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
    from sparsecircuits.circuits.measures.corpus import score_on_corpus

    assert command.corpus is not None
    if n < 1:
        raise UserError(f"n must be at least 1, got {n}")
    result = score_on_corpus(model, chosen, command.corpus, n)
    result["tasks"] += skipped
    if command.json:
        print_json(result)
        return
    measures = ("balanced_accuracy", "balanced_accuracy_of_classes", "balanced_accuracy_shifted", "cue_accuracy")
    rows = []
    for row in result["tasks"]:
        places, cue = " · ".join(map(str, row.get("places", ()))), row.get("cue")
        rule = f"{cue!r}: {row['cue_says']!r}" if cue is not None else row.get("skipped")
        rows.append([row["name"], places, *map(row.get, measures), rule])
    columns = ["task", "places", "two answers", "classes", "shifted", "one token", "which: what it says"]
    title = f"balanced accuracy of {command.model} on {result['files']} files of {command.corpus}"
    print_table(title, columns, rows, (1, 2, 3, 4, 5))


def _chosen_tasks(
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


def prune(command: args.Prune) -> None:
    """Find circuits and save each with its report; for several, a table and a plot."""
    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.circuits.table import summary, write_table

    if bool(command.tasks or command.task_file) == command.all:
        sys.stderr.write("error: name at least one task, or give --task-file or --all\n")
        raise SystemExit(2)
    models = (command.model, *command.beside)
    folders = _circuit_folders(command, models)
    check_paths(models=models, task_file=command.task_file, out=folders.values())
    found: list[dict[str, Any]] = []
    for path, folder in folders.items():
        found += [{"model": str(path), **record} for record in _prune_model(path, folder, command)]
    curves: dict[str, dict[str, list]] = {str(path): {} for path in models}
    for record in found:
        if "path" in record:
            circuit = Circuit.load(record["path"])
            curves[record["model"]][circuit.task] = circuit.found_by["curve"]
    written = []
    if command.all or command.beside:
        written = write_table(command.out or folders[command.model], found, curves, command.target_loss)
    if command.json:
        shown = found if command.beside else [{k: v for k, v in r.items() if k != "model"} for r in found]
        more = {"summary": summary(curves, command.target_loss), "files": [str(path) for path in written]}
        print_json({"circuits": shown, **(more if written else {})})
        return
    _print_found(found, command)
    for mean in summary(curves, command.target_loss) if written else []:
        edges = mean["geometric_mean_edges"]
        if edges is not None:
            print_text(f"{mean['model']}: geometric mean of edges over {len(mean['tasks'])} tasks: {edges:.3g}")
    for path in [record["path"] for record in found if "path" in record] + written:
        print_text(str(path))


def _print_found(found: list[dict[str, Any]], command: args.Prune) -> None:
    """One row per circuit; and whether each is measured raw or calibrated, with the order that neither changes."""
    columns = ["model", "task"] if command.beside else ["task"]
    circuits = [record for record in found if "path" in record]
    names = ["loss", "loss_full_calibrated", "loss_ablated_calibrated", "n_nodes", "n_edges", "seconds"]
    header = [*columns, "circuit", "whole model", "without it", "nodes", "edges", "seconds"]
    right = tuple(range(len(columns), len(header)))
    title = f"circuits at a target loss of {command.target_loss}, losses on held-out prompts, all calibrated"
    print_table(title, header, [[record[c] for c in columns + names] for record in circuits], right=right)
    runs = ("", "_full", "_ablated")
    names = [f"loss{run}{'_raw' if not run else ''}" for run in runs] + [f"order{run}" for run in runs]
    header = [*columns, *("circuit", "whole model", "without it") * 2]
    right = tuple(range(len(columns), len(header)))
    title = "raw losses, and the share of pairs in the right order"
    print_table(title, header, [[record[c] for c in columns + names] for record in circuits], right=right)


def _circuit_folders(command: args.Prune, models: tuple[Path, ...]) -> dict[Path, Path]:
    """Where each model's circuits go. Raises UserError when two would go to one place."""
    if command.out is None:
        folders = {path: (path if path.is_dir() else path.parent) / "circuits" for path in models}
    else:
        folders = {path: command.out / path.resolve().name if command.beside else command.out for path in models}
    if len(set(folders.values())) < len(models):
        raise UserError("two of the models have the same name: their circuits would overwrite each other")
    return folders


def _prune_model(path: Path, folder: Path, command: args.Prune) -> list[dict[str, Any]]:
    from sparsecircuits.interop.loading import load_model

    model = load_model(path)
    chosen, skipped = _chosen_tasks(model, list(command.tasks), command.task_file)
    for record in skipped:
        say(f"skipped {record['name']}: {record['skipped']}")
    label = chosen[0].name if len(chosen) == 1 else f"{len(chosen)} tasks"
    with progress(f"pruning {label}") as update:
        found = list(_prune_chosen(model, chosen, command, folder, update))
    return found + [{"task": r["name"], "target_loss": command.target_loss, "skipped": r["skipped"]} for r in skipped]


def _prune_chosen(
    model: "SparseTransformer", chosen: list["Task"], command: args.Prune, folder: Path, update: Any
) -> Iterator[dict[str, Any]]:
    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.circuits.many import default_workers, prune_tasks, search_tasks

    if command.search is None:
        done = prune_tasks(
            model,
            chosen,
            folder,
            command.target_loss,
            config=command.config,
            workers=command.workers or default_workers(model),
            report=update,
        )
    else:
        done = search_tasks(
            model,
            chosen,
            folder,
            command.target_loss,
            trials=command.search,
            config=command.config,
            workers=command.workers or 1,
            report=update,
        )
    for task, outcome in done:
        if isinstance(outcome, str):
            say(f"skipped {task.name}: {outcome}")
            yield {"task": task.name, "target_loss": command.target_loss, "skipped": outcome}
        else:
            yield circuit_record(Circuit.load(outcome), outcome)


def circuit_record(circuit: "Circuit", path: Path) -> dict[str, Any]:
    """A circuit in the contract's JSON."""
    assert circuit.losses is not None
    return {
        "task": circuit.task,
        "target_loss": circuit.target_loss,
        "loss": circuit.losses.circuit,
        "loss_full": circuit.losses.full,
        "loss_ablated": circuit.losses.ablated,
        "loss_raw": circuit.losses.circuit_raw,
        "loss_full_calibrated": circuit.losses.full_calibrated,
        "loss_ablated_calibrated": circuit.losses.ablated_calibrated,
        "order": circuit.losses.order,
        "order_full": circuit.losses.order_full,
        "order_ablated": circuit.losses.order_ablated,
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "seconds": circuit.found_by.get("seconds"),
        "path": str(path),
    }


def report(command: args.Report) -> None:
    """Measure circuits and write report.json, report.md and report.html beside each."""
    from sparsecircuits.circuits.faithfulness import faithfulness
    from sparsecircuits.interop.published import load_circuit
    from sparsecircuits.tasks import task_of_circuit
    from sparsecircuits.viewer.library import circuit_files

    files = [file for path in command.circuits for file in (circuit_files(path) if path.is_dir() else [path])]
    check_paths(models=[command.model], corpus=command.corpus, out=[path.parent for path in files])
    circuits = [load_circuit(path) for path in files]
    reports = []
    for path, circuit in zip(files, circuits, strict=True):
        model = _model_of(path, command.model)
        task = task_of_circuit(circuit.task, path.parent, model.tokenizer)
        with progress(f"card of {circuit.task}") as update:
            card = faithfulness(
                model,
                circuit,
                task,
                full=command.full,
                corpus=command.corpus,
                seed=command.seed,
                report=update,
            )
        saved = card.save(path.with_name("report.json"))
        reports.append({**card.model_dump(mode="json"), "path": str(saved)})
        if not command.json:
            print_text(card.to_markdown())
    if command.json:
        print_json({"reports": reports})


def _model_of(circuit_path: Path, model: Path | None) -> "SparseTransformer":
    """The given model, or that of the run directory around a circuit file."""
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.models.storage import CONFIG_NAME

    if model is not None:
        return load_model(model)
    for folder in Path(circuit_path).resolve().parents:
        if (folder / CONFIG_NAME).exists():
            return load_model(folder)
    raise UserError(f"no run directory around {circuit_path}: say which model it is of with --model")


def view(command: args.View) -> None:
    """Serve circuits to a browser on this machine."""
    from sparsecircuits.viewer.library import circuit_files
    from sparsecircuits.viewer.server import serve

    check_paths(models=[command.model])
    found = circuit_files(command.path)
    server = serve(found, command.port, command.model)
    if command.json:
        print_json({"url": server.url, "circuits": [str(path) for path in found]})
    else:
        print_text(f"{len(found)} circuit{'s' * (len(found) != 1)} at {server.url} (Ctrl-C stops)")
    sys.stdout.flush()
    if command.open:
        _open_browser(server.url)
    server.wait()


def convert(command: args.Convert) -> None:
    """Write a model, or a published circuit, in another format."""
    from sparsecircuits.interop.convert import convert, convert_circuit
    from sparsecircuits.interop.published import is_published
    from sparsecircuits.interop.released import WEIGHTS_NAME

    if is_published(command.source) and Path(command.source).name != WEIGHTS_NAME:
        check_paths(models=[command.model], data=command.data)
        circuit = convert_circuit(command.source, command.destination, command.to, command.model, command.data)
        sizes = {"n_nodes": len(circuit.nodes), "n_edges": len(circuit.edges)}
        if command.json:
            print_json({"source": command.source, "path": str(command.destination), "task": circuit.task, **sizes})
        else:
            print_text(f"{command.destination}: {circuit.task}, {sizes['n_nodes']} nodes, {sizes['n_edges']} edges")
        return
    if command.model or command.data:
        raise UserError("--model and --data are for a published circuit, a viz_data.pt")

    model = convert(command.source, command.destination, command.to)
    tensors = len(model.state_dict())
    if command.json:
        source = str(command.source)
        print_json({"source": source, "path": str(command.destination), "format": command.to, "tensors": tensors})
    else:
        print_text(f"{command.destination}: {tensors} tensors of {model.name} in the {command.to} format")


def plot(command: args.Plot) -> None:
    """Draw runs' curves."""
    from sparsecircuits.plots import plot_runs

    drawn = plot_runs(command.runs, command.out, axis=command.x)
    if command.json:
        runs = [str(run) for run in command.runs]
        print_json({"path": str(command.out), "runs": runs, "panels": [panel.key for panel in drawn]})
    else:
        print_text(f"{command.out}: {', '.join(panel.title.lower() for panel in drawn)}")


def bench(command: args.Bench) -> None:
    """Time against baselines."""
    from sparsecircuits.benchmarks import run_benchmarks

    with progress("bench   ") as update:
        rows = run_benchmarks(command.name, command.rounds, update)
    if command.json:
        print_json({"rows": rows})
    else:
        columns = ["case", "ours_ms", "baseline", "baseline_ms", "ratio"]
        columns += ["gb_per_s"] if any("gb_per_s" in row for row in rows) else []
        print_table("", columns, [[row.get(c, "") for c in columns] for row in rows], right=(1, 3, 4, 5))


def _print_circuit(circuit: "Circuit") -> None:
    losses = circuit.losses
    assert losses is not None
    print_table(
        f"{circuit.task}: {len(circuit.nodes)} nodes",
        ["node", "head", "mean", "importance"],
        [[n.name, n.head, n.mean, n.importance] for n in circuit.nodes],
        right=(1, 2, 3),
    )
    print_table(
        f"{len(circuit.edges)} edges",
        ["from", "to", "weight"],
        [[e.source, e.target, e.weight] for e in circuit.edges],
        right=(2,),
    )
    print_table(
        f"losses on {2 * losses.n_pairs} held-out prompts: target {circuit.target_loss}, chance 0.693",
        ["what runs", "calibrated", "raw", "pairs in order"],
        [[name, *values] for name, *values in losses.rows],
        right=(1, 2, 3),
    )


def _open_browser(url: str) -> None:
    """Open a browser where there is a screen; never a text browser in the terminal."""
    import os
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        say(f"open {url}")
        return
    webbrowser.open(url)
