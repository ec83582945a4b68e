"""Circuits of several tasks, side by side."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.errors import TaskTooHard
from sparsecircuits.files import sweep, write_text
from sparsecircuits.locks import LOCK_NAME, locked
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.pruning.backups import Backups
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.discovery import prune
from sparsecircuits.pruning.search import search
from sparsecircuits.pruning.workers import pool, refuse_in_worker
from sparsecircuits.runs import BACKUPS_NAME, CIRCUIT_NAME, TASK_FILE, backups_folder, circuit_path, search_folder
from sparsecircuits.tasks import Task, write_task_file
from sparsecircuits.tasks.own import FileTask

Report = Callable[[float, str], None]
Keep = Callable[[SparseTransformer, Task, Circuit, Path], Path]
"""Saves a task's circuit in a folder of circuits, and what else is kept beside it; returns the circuit's path."""


@dataclass(frozen=True)
class _Pruning:
    """One task's pruning; what all tasks share."""

    model: SparseTransformer
    folder: Path
    target_loss: float
    config: PruneConfig
    means: torch.Tensor
    keep: Keep

    def __call__(self, task: Task, report: Report | None = None) -> Path | str:
        """The path of the saved circuit, or why there is none."""
        try:
            circuit = prune(self.model, task, self.target_loss, config=self.config, means=self.means, report=report)
        except TaskTooHard as error:
            return str(error)
        return self.keep(self.model, task, circuit, self.folder)


def save_circuit(_model: SparseTransformer, task: Task, circuit: Circuit, folder: Path) -> Path:
    """Write <task>/circuit.json and, for a task of one's own, its pairs. Returns the first's path."""
    return _save_at(circuit_path(folder, task.name), task, circuit)


def save_backups(found: Backups, task: Task, folder: Path) -> list[Path]:
    """Write each of a task's backup circuits to <task>/backups/<k>/circuit.json under a folder of circuits, and what
    was found of them all to backups.json; circuits of an earlier search go. Returns the paths, the circuits' first."""
    into = backups_folder(folder, task.name)
    paths = [circuit_path(into, str(place)) for place in range(1, 1 + len(found.circuits))]
    for path, circuit in zip(paths, found.circuits, strict=True):
        _save_at(path, task, circuit)
    for path in into.glob(f"*/{CIRCUIT_NAME}"):
        if path not in paths:
            path.unlink()
    record = {"task": task.name, **found.record.model_dump(mode="json")}
    return [*paths, write_text(into / BACKUPS_NAME, json.dumps(record, indent=1) + "\n")]


def _save_at(path: Path, task: Task, circuit: Circuit) -> Path:
    if isinstance(task, FileTask):
        write_task_file(task, path.with_name(TASK_FILE))
    return circuit.save(path)


def prune_tasks(
    model: SparseTransformer,
    tasks: Sequence[Task],
    folder: str | Path,
    target_loss: float = 0.15,
    *,
    keep: Keep,
    config: PruneConfig | None = None,
    means: torch.Tensor | None = None,
    workers: int | str = 1,
    report: Report | None = None,
) -> Iterator[tuple[Task, Path | str]]:
    """`prune` each task and `keep` its circuit under folder/<task>/; yield each task, as it is done, with its
    circuit's path, or with the reason why the model has none. Raises UserError, before any work, if another process
    prunes into one of the folders.

    workers: how many tasks at a time, each in a process of its own that gets its share of this one's threads; or
    "ray" for the cluster that RAY_ADDRESS names. keep: a function that they can be sent, such as `save_with_card`
    of `faithfulness`, which writes the card that no circuit should be without. report(share done, what is going on).
    """
    refuse_in_worker()
    tell = report or (lambda share, details: None)
    with _held(Path(folder), tasks):
        means = training_means(model) if means is None else means
        pruning = _Pruning(model, Path(folder), target_loss, config or PruneConfig(), means, keep)
        if workers in (1, "1") or len(tasks) < 2:
            for place, task in enumerate(tasks):
                yield task, pruning(task, _part(tell, task.name, place, len(tasks)))
        else:
            yield from _side_by_side(pruning, tasks, workers, tell)


@contextlib.contextmanager
def _held(folder: Path, tasks: Sequence[Task]) -> Iterator[None]:
    """The folders of these tasks' circuits, for this process alone; what killed ones left there is swept."""
    with contextlib.ExitStack() as held:
        for name in sorted({task.name for task in tasks}):
            held.enter_context(locked(folder / name / LOCK_NAME, f"a pruning into {folder / name}"))
            sweep(folder / name)
        yield


def default_workers(model: SparseTransformer) -> int:
    """A task per thread that this process may use; on a GPU one at a time."""
    return torch.get_num_threads() if model.device.type == "cpu" else 1


def search_tasks(
    model: SparseTransformer,
    tasks: Sequence[Task],
    folder: str | Path,
    target_loss: float = 0.15,
    *,
    keep: Keep,
    trials: int,
    config: PruneConfig | None = None,
    workers: int | str = 1,
    report: Report | None = None,
) -> Iterator[tuple[Task, Path | str]]:
    """`search` for each task's circuit, one task after the other, with `workers` prunings at a time; each search is
    kept in folder/<task>/search. Yields as `prune_tasks` does."""
    refuse_in_worker()
    tell, folder = report or (lambda share, details: None), Path(folder)
    with _held(folder, tasks):
        means = training_means(model)
        for place, task in enumerate(tasks):
            try:
                circuit = search(
                    model,
                    task,
                    target_loss,
                    search_folder(folder, task.name),
                    trials=trials,
                    workers=workers,
                    config=config,
                    means=means,
                    report=_part(tell, task.name, place, len(tasks)),
                )
            except TaskTooHard as error:
                yield task, str(error)
            else:
                yield task, keep(model, task, circuit, folder)


def _part(tell: Report, name: str, place: int, n: int) -> Report:
    """Progress of one of n tasks as progress of all."""
    label = f"{name} · " if n > 1 else ""
    return lambda share, details: tell((place + share) / n, label + details)


def _side_by_side(
    pruning: _Pruning, tasks: Sequence[Task], workers: int | str, tell: Report
) -> Iterator[tuple[Task, Path | str]]:
    waiting, running = list(reversed(tasks)), dict[Future[Path | str], Task]()
    with pool(pruning, workers, len(tasks)) as (submit, size):
        while waiting or running:
            while waiting and len(running) < size:
                task = waiting.pop()
                running[submit(task)] = task
            done = len(tasks) - len(waiting) - len(running)
            names = ", ".join(task.name for task in running.values())
            tell(done / len(tasks), f"{done} of {len(tasks)} done · now {names}")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
        tell(1.0, f"{len(tasks)} done")
