"""Which circuits a path means, and what such a file holds: for every command that takes circuits.

Imports no torch, but to translate a published circuit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.runs import circuits_under

if TYPE_CHECKING:
    from torch import Tensor

    from sparsecircuits.circuits.circuit import Circuit
    from sparsecircuits.interop.published import Published
    from sparsecircuits.models.transformer import SparseTransformer

MOST_CIRCUITS = 500


@dataclass(frozen=True)
class CircuitFile:
    """A circuit's file, read once: what it says by itself, and the circuit that it is in its model."""

    path: Path
    data: CircuitData
    published: "Published | None" = None
    """Where the file is one of the authors' (`viz_data.pt`)."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UserError for a file that cannot be read, or that is no circuit."""
        if path.suffix != ".pt" and not is_published(path):  # a damaged one may have lost its first bytes
            return cls(path, CircuitData.load(path))
        from sparsecircuits.interop.published import Published

        published = Published.read(path)
        return cls(path, published.circuit(), published)

    def in_model(self, model: "SparseTransformer | None", means: "Tensor | None" = None) -> "Circuit":
        """The circuit; a published one gets edges of the model, and `means` [nodes] as its ablation values."""
        from sparsecircuits.circuits.circuit import Circuit

        if self.published is not None:
            return self.published.circuit(model, means)
        return Circuit.model_validate(dict(self.data))

    def to_run(self, model: "SparseTransformer") -> "Circuit":
        """The circuit as it can run, as far as may be: ablation values that a published one lacks are the means over
        the text that the model was trained on, if it says which."""
        from sparsecircuits.nodes.ablation_values import training_means

        lacks = self.published is not None and model.corpus is not None
        return self.in_model(model, training_means(model) if lacks else None)


def is_published(path: str | Path) -> bool:
    """Whether a file is a PyTorch file rather than a circuit's JSON (by its first bytes)."""
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"PK", b"\x80\x02")
    except OSError:
        return False


def circuit_files(path: str | Path) -> list[Path]:
    """The circuit files that a path means: the file itself, or those of a circuit's folder, of a run (also
    `pretrained:NAME`), or of a folder of runs. Raises UserError when there is none."""
    found = _files(path)
    if found == [path := Path(path)]:
        _read_alone(path)
    return found


def read_circuits(path: str | Path) -> list[CircuitFile]:
    """The files that `circuit_files` names, each read once. Raises UserError when one of them cannot be."""
    found = _files(path)
    return [_read_alone(found[0])] if found == [Path(path)] else [CircuitFile.read(file) for file in found]


def _files(path: str | Path) -> list[Path]:
    path = folder_of(str(path)) if is_pretrained(path) else Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise UserError(f"no circuit at {path}: give a circuit.json, a run directory or a folder of runs")
    found = circuits_under(path)
    if not found:
        raise UserError(f"no circuit under {path}: find one with `sparsecircuits prune {path} TASK`")
    return found[:MOST_CIRCUITS]


def _read_alone(path: Path) -> CircuitFile:
    """A file that was named itself: it may be anything."""
    try:
        return CircuitFile.read(path)
    except UserError as error:
        raise UserError(f"{path} is no circuit that can be read: {error}") from error


def read_circuit(path: Path) -> CircuitData:
    """What a circuit's file says by itself. A published one (`viz_data.pt`) is translated, which takes torch."""
    return CircuitFile.read(path).data


def load_circuit(path: str | Path, model: "SparseTransformer | None" = None) -> "Circuit":
    """A circuit's JSON or a published file, by content; `model` is for the latter. Raises UserError."""
    return CircuitFile.read(Path(path)).in_model(model)
