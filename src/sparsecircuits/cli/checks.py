"""Paths on the command line, checked before any work."""

from collections.abc import Iterable
from pathlib import Path

from sparsecircuits.errors import UserError
from sparsecircuits.files import read_text, require_writable


def check_paths(
    *,
    models: Iterable[str | Path | None] = (),
    corpus: Path | None = None,
    data: str | None = None,
    task_file: Path | None = None,
    out: Iterable[Path] = (),
) -> None:
    """Raise UserError for the first that is not there: models, a folder of code, a corpus as `train` names it, a task
    file; or for a folder to write into that cannot be written, or that ships with the package."""
    from sparsecircuits.data.corpora import require_folder
    from sparsecircuits.data.spec import parse_spec
    from sparsecircuits.interop.loading import require_model
    from sparsecircuits.interop.pretrained import require_own

    for model in models:
        if model is not None:
            require_model(model)
    if corpus is not None:
        require_folder(corpus)
    if data is not None:
        parse_spec(data)
    if task_file is not None:
        read_text(task_file, "task file")
    for folder in out:
        require_own(folder)
        require_writable(folder)


def run_around(circuit: Path) -> Path:
    """The run directory around a circuit file. Raises UserError where there is none."""
    from sparsecircuits.runs import run_of

    run = run_of(circuit)
    if run is None:
        raise UserError(f"no run directory around {circuit}: say which model it is of with --model")
    return run
