"""The command `backups`: how many circuits a task has that do without one another."""

from typing import TYPE_CHECKING

from sparsecircuits.cli import arguments as args
from sparsecircuits.cli.checks import check_paths
from sparsecircuits.cli.show import print_json, print_table, print_text, progress
from sparsecircuits.cli.tasks import chosen_tasks
from sparsecircuits.errors import UserError

if TYPE_CHECKING:
    from sparsecircuits.pruning.backups import BackupRecord


def backups(command: args.Backups) -> None:
    """Peel circuit after circuit off a model, and save them all."""
    from sparsecircuits.interop.loading import load_model
    from sparsecircuits.pruning.backups import backups
    from sparsecircuits.pruning.many import save_backups
    from sparsecircuits.runs import circuits_folder

    if (command.task is None) == (command.task_file is None):
        raise UserError("name one task, or give --task-file")
    folder = command.out or circuits_folder(command.model)
    check_paths(models=[command.model], task_file=command.task_file, out=[folder])
    model = load_model(command.model)
    [task], _ = chosen_tasks(model, [command.task] if command.task else [], command.task_file)
    with progress(f"backups of {task.name}") as update:
        found = backups(
            model,
            task,
            command.target_loss,
            config=command.config,
            most=command.most,
            seeds=command.seeds,
            report=update,
        )
    paths = [str(path) for path in save_backups(found, task, folder)]
    if command.json:
        print_json({"task": task.name, **found.record.model_dump(mode="json"), "paths": paths})
        return
    _print(found.record)
    for path in paths:
        print_text(path)


def _print(record: "BackupRecord") -> None:
    rows = [[k, len(x.nodes), len(x.edges), x.loss, x.loss_left] for k, x in enumerate(record.ways, 1)]
    title = f"circuits without one another at a target loss of {record.target_loss}; calibrated losses"
    header = ["circuit", "nodes", "edges", "held-out loss", "the model without all so far"]
    print_table(title, header, rows, right=(0, 1, 2, 3, 4))
    print_text(record.words)
    if record.core:
        print_text("necessary core: " + " ".join(record.core))
    if record.overlap is not None:
        shared = record.overlap
        print_text(
            f"over {len(shared.n_nodes)} seeds circuits share {shared.nodes:.2f} of their nodes and {shared.edges:.2f} "
            "of their edges (mean Jaccard index)"
        )
