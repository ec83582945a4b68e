"""Which circuits a path means, and what such a file holds: for every command that takes circuits.

Imports no torch, but to translate a published circuit.
"""

from pathlib import Path

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.runs import circuits_under

MOST_CIRCUITS = 500


def circuit_files(path: str | Path) -> list[Path]:
    """The circuit files that a path means: the file itself, or those of a circuit's folder, of a run (also
    `pretrained:NAME`), or of a folder of runs. Raises UserError when there is none."""
    path = folder_of(str(path)) if is_pretrained(path) else Path(path)
    if path.is_file():
        try:
            read_circuit(path)
        except UserError as error:
            raise UserError(f"{path} is no circuit that can be read: {error}") from error
        return [path]
    if not path.exists():
        raise UserError(f"no circuit at {path}: give a circuit.json, a run directory or a folder of runs")
    found = circuits_under(path)
    if not found:
        raise UserError(f"no circuit under {path}: find one with `sparsecircuits prune {path} TASK`")
    return found[:MOST_CIRCUITS]


def read_circuit(path: Path) -> CircuitData:
    """A circuit file; a published one (`viz_data.pt`) is translated, which takes torch."""
    if path.suffix != ".pt":
        return CircuitData.load(path)
    from sparsecircuits.interop.published import read_published

    return read_published(path)
