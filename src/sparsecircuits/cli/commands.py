"""One function per command: call the library, print what it says."""

import contextlib
import functools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.backups import backups as backups
from sparsecircuits.cli.bridges import bridge as bridge
from sparsecircuits.cli.bridges import edit as edit
from sparsecircuits.cli.bridges import steer as steer
from sparsecircuits.cli.checks import check_paths, run_around
from sparsecircuits.cli.corpus import text_of
from sparsecircuits.cli.export import export as export
from sparsecircuits.cli.models import models as models
from sparsecircuits.cli.reproduce import reproduce as reproduce
from sparsecircuits.cli.show import Update, print_json, print_table, print_text, progress, say, silent
from sparsecircuits.cli.tasks import chosen_tasks
from sparsecircuits.cli.tasks import tasks as tasks
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
        print_text(f"\nto run it, change it and watch the answers:\n  {_view_line(Path(result['run']))}")
    if command.open:
        _open_browser(Path(result["page"]).resolve().as_uri())


def train(command: args.Train) -> None:
    """Train into a run directory."""
    from sparsecircuits.models.transformer import count_parameters
    from sparsecircuits.runs import METRICS_NAME
    from sparsecircuits.training.distributed import joined
    from sparsecircuits.training.metrics import read_metrics

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
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.training.hardware import auto_dtype
    from sparsecircuits.training.loop import train

    shown = progress if world.is_first else silent

    def prepare() -> "TokenData":
        with shown("corpus  ") as update:
            return prepare_tokens(
                config.data, Tokenizer.default(), progress=lambda done, total, label: update(done / total, label)
            )

    init = load_model(config.init) if config.init and not resume else None
    if world.is_first and config.dtype == "auto":
        say("dtype {} ({})".format(*auto_dtype(world.device())))
    with contextlib.ExitStack() as display:
        bars: list[Update] = []

        def report(status: Status) -> None:
            if not bars:  # once the corpus is done: two bars at a time are too many for a terminal
                bars.append(display.enter_context(shown("training")))
            bars[0](status.progress, status.describe())

        return train(config, out, resume=resume, init=init, tokens=prepare, report=report)


def evaluate(command: args.Eval) -> None:
    """Validation loss and statistics of a model."""
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.models.statistics import model_statistics

    check_paths(models=[command.model], data=command.data)
    model = load_model(command.model)
    data, tokens = text_of(model, command.data)
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
    from sparsecircuits.interop.loading import load_model, load_sparse
    from sparsecircuits.models.generation import generate

    text = generate(
        load_sparse(command.model) if command.runtime == "sparse" else load_model(command.model),
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


def prune(command: args.Prune) -> None:
    """Find circuits and save each with its report; for several, a table and a plot."""
    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.faithfulness.table import Curves, summary, write_table
    from sparsecircuits.pruning.size_curve import curve_of

    if bool(command.tasks or command.task_file) == command.all:
        sys.stderr.write("error: name at least one task, or give --task-file or --all\n")
        raise SystemExit(2)
    models = (command.model, *command.beside)
    folders = _circuit_folders(command, models)
    check_paths(models=models, task_file=command.task_file, out=folders.values())
    found: list[dict[str, Any]] = []
    for path, folder in folders.items():
        found += [{"model": str(path), **record} for record in _prune_model(path, folder, command)]
    curves: Curves = {str(path): {} for path in models}
    for record in found:
        if "path" in record:
            circuit = Circuit.load(record["path"])
            curves[record["model"]][circuit.task] = curve_of(circuit)
    written = []
    if command.all or command.beside:
        written = write_table(command.out or folders[command.model], found, curves, command.target_loss)
    if command.json:
        shown = found if command.beside else [{k: v for k, v in r.items() if k != "model"} for r in found]
        more = {"summary": summary(curves, command.target_loss), "files": [str(path) for path in written]}
        print_json({"circuits": shown, **(more if written else {})})
        return
    _print_found(found, command)
    if any("path" in record for record in found):
        print_text(f"\nto look at what was found:\n  {_view_of(found, command)}")
    for mean in summary(curves, command.target_loss) if written else []:
        edges = mean["geometric_mean_edges"]
        if edges is not None:
            print_text(f"{mean['model']}: geometric mean of edges over {len(mean['tasks'])} tasks: {edges:.3g}")
    for path in [record["path"] for record in found if "path" in record] + written:
        print_text(str(path))


def _view_line(path: Path, model: Path | None = None) -> str:
    """The command that shows what lies at a path, ready to be typed. model: where it is not around the circuit."""
    return shlex.join(["sparsecircuits", "view", str(path), *(["--model", str(model)] if model else [])])


def _view_of(found: list[dict[str, Any]], command: args.Prune) -> str:
    """The command that shows what was pruned: the circuit, or where all of a model are."""
    paths = [Path(record["path"]) for record in found if "path" in record]
    if command.out is None:
        return _view_line(paths[0] if len(paths) == 1 else command.model)
    return _view_line(paths[0] if len(paths) == 1 else command.out, None if command.beside else command.model)


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
    from sparsecircuits.runs import circuits_folder

    if command.out is None:
        folders = {path: circuits_folder(path) for path in models}
    else:
        folders = {path: command.out / path.resolve().name if command.beside else command.out for path in models}
    if len(set(folders.values())) < len(models):
        raise UserError("two of the models have the same name: their circuits would overwrite each other")
    return folders


def _prune_model(path: Path, folder: Path, command: args.Prune) -> list[dict[str, Any]]:
    from sparsecircuits.interop.loading import load_model

    model = load_model(path)
    chosen, skipped = chosen_tasks(model, list(command.tasks), command.task_file)
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
    from sparsecircuits.faithfulness.report import save_with_card
    from sparsecircuits.pruning.many import default_workers, prune_tasks, search_tasks

    if command.search is None:
        done = prune_tasks(
            model,
            chosen,
            folder,
            command.target_loss,
            keep=save_with_card,
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
            keep=save_with_card,
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
        "seconds": circuit.found_by.seconds,
        "path": str(path),
    }


def report(command: args.Report) -> None:
    """Measure circuits and write report.json, report.md and report.html beside each, but for those that ship."""
    from sparsecircuits.faithfulness.report import faithfulness
    from sparsecircuits.interop.circuit_files import read_circuits
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.interop.pretrained import ships
    from sparsecircuits.runs import card_path
    from sparsecircuits.tasks import task_of_circuit

    files = {file.path: file for path in command.circuits for file in read_circuits(path)}
    own = [path for path in files if not ships(path)]
    check_paths(models=[command.model], corpus=command.corpus, out=[path.parent for path in own])
    places = {path: command.model or run_around(path) for path in files}
    load = functools.lru_cache(maxsize=1)(load_model)  # a run's circuits follow one another
    reports = []
    for path, place in places.items():
        model = load(place)
        circuit = files[path].to_run(model)
        task = task_of_circuit(circuit.task, path.parent, model.tokenizer)
        with progress(f"card of {circuit.task}") as update:
            card = faithfulness(
                model,
                circuit,
                task,
                full=command.full,
                deep=command.deep,
                corpus=command.corpus,
                seed=command.seed,
                report=update,
            )
        saved = str(card.save(card_path(path))) if path in own else None
        if saved is None:
            say(f"not saved: {path} ships with the package (copy the model's folder to keep cards in it)")
        reports.append({**card.model_dump(mode="json"), "path": saved})
        if not command.json:
            print_text(card.to_markdown())
    if command.json:
        print_json({"reports": reports})


def view(command: args.View) -> None:
    """Serve circuits to a browser on this machine."""
    from sparsecircuits.bridges.record import holds_bridge
    from sparsecircuits.interop.circuit_files import circuit_files
    from sparsecircuits.viewer.server import serve

    check_paths(models=[command.model, command.dense])
    bridge = command.bridge or (command.path if holds_bridge(command.path) else None)
    if command.dense is not None and bridge is None:
        raise UserError("--dense is the dense model of a bridge: give its folder with --bridge")
    found = circuit_files(command.path)
    server = serve(found, command.port, command.model, command.allow_host, bridge=bridge, dense=command.dense)
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
    from sparsecircuits.interop.circuit_files import is_published
    from sparsecircuits.interop.convert import convert, convert_circuit
    from sparsecircuits.runs import RELEASED_WEIGHTS

    if is_published(command.source) and Path(command.source).name != RELEASED_WEIGHTS:
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
    from sparsecircuits.benchmarks.inference import LEFT_OUT

    with progress("bench   ") as update:
        rows = run_benchmarks(command.name, command.rounds, update, full=command.full)
    left = {} if command.full else {name: out for name, out in LEFT_OUT.items() if command.name in (None, name)}
    if command.json:
        print_json({"rows": rows, "left_out": left})
    else:
        columns = ["case", "ours_ms", "baseline", "baseline_ms", "ratio"]
        columns += [name for name in ("gb_per_s", "share_of_bandwidth") if any(name in row for row in rows)]
        print_table("", columns, [[row.get(c, "") for c in columns] for row in rows], right=(1, 3, 4, 5))
        for name, out in left.items():
            print_text(f"{name} without --full leaves out: {out}")


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
