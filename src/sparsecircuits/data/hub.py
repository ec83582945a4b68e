"""Hugging Face datasets as endless, resumable streams of documents (extra: hf). Runs no code of a dataset."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded

COLUMNS = ("content", "text", "code", "source", "whole_func_string", "func_code_string")
"""Where text is looked for, in this order."""
BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}
_SPEC = re.compile(r"hf:(?P<name>[^:@#]+)(:(?P<config>[^@#]+))?(@(?P<revision>[^#]+))?(#(?P<column>.+))?")


@dataclass(frozen=True)
class HubSource:
    """A parsed `hf:NAME[:CONFIG][@REVISION][#COLUMN]`; name may be a folder or a file on disk."""

    name: str
    config: str | None = None
    revision: str | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubSource:
        """Raises UserError for a text of another form."""
        found = _SPEC.fullmatch(text)
        if not found:
            raise UserError(f'"{text}" is not of the form hf:NAME[:CONFIG][@REVISION][#COLUMN]')
        return cls(**found.groupdict())

    @property
    def path(self) -> Path | None:
        """Where it is on disk, or None for a dataset of the Hub."""
        path = expanded(self.name)
        return path if path.exists() else None


def require_datasets() -> None:
    """Raise UserError if the package is missing."""
    if importlib.util.find_spec("datasets") is None:
        raise UserError("hf: corpora need the package datasets: pip install 'sparsecircuits[hf]'")


def resolved_revision(source: HubSource) -> str | None:
    """The commit that a dataset's revision (by default its newest) stands for; None on disk.

    Raises UserError when the Hub cannot be reached or has no such dataset.
    """
    if source.path is not None or re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        return source.revision
    require_datasets()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return HfApi().dataset_info(source.name, revision=source.revision, timeout=20).sha
    except HfHubHTTPError as error:
        raise UserError(
            f"the Hugging Face Hub has no dataset {source.name!r}"
            + (f" at revision {source.revision!r}" if source.revision else "")
            + f" that you may read ({_first_line(error)}); for one on disk write hf:PATH"
        ) from error
    except Exception as error:  # several libraries' connection errors, and names that are not well-formed
        raise UserError(
            f"cannot reach the dataset {source.name!r} on the Hugging Face Hub ({_first_line(error)}); "
            "for a dataset on disk write hf:PATH"
        ) from error


def fingerprint_rows(source: HubSource) -> list[str]:
    """Rows that change whenever the dataset does: its commit, or the names, sizes and times of its files."""
    path = source.path
    if path is None:
        return [str(resolved_revision(source))]
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return [str(path.resolve()), *(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)]


def open_dataset(source: HubSource, revision: str | None) -> tuple[Any, str]:
    """(streaming dataset of the text column alone, that column's name).

    Raises UserError when it cannot be opened, has no training split, or no column that is surely the text.
    """
    require_datasets()
    from datasets import load_dataset

    path = source.path
    try:
        if path is not None and path.is_file():
            if path.suffix not in BUILDERS:
                raise UserError(f"{path}: a dataset file ends in {', '.join(BUILDERS)}")
            found = load_dataset(BUILDERS[path.suffix], data_files=str(path), streaming=True)
        elif path is not None:
            found = load_dataset(str(path), source.config, streaming=True)
        else:
            found = load_dataset(source.name, source.config, revision=revision, streaming=True)
        if "train" not in found and len(found) > 1:
            raise UserError(f"{source.name} has the splits {', '.join(found)}, none of them called train")
        dataset = found["train" if "train" in found else next(iter(found))]
        columns = _columns(dataset)
        column = source.column or _text_column(source, columns)
        if column not in columns:
            raise UserError(f"{source.name} has no column {column!r}; it has {', '.join(columns)}")
        return dataset.select_columns([column]), column
    except UserError:
        raise
    except Exception as error:  # the library raises its own and several others' errors
        raise UserError(f"cannot open the dataset {source.name!r}: {_first_line(error)}") from error


def _columns(dataset: Any) -> dict[str, bool]:
    """The names of the columns, each with whether it is text. Where the library says them only after reading (CSV,
    text, for versions before 4.7 JSON lines too), those of the first row that has text."""
    if dataset.column_names is not None and dataset.features is not None:
        return {name: getattr(dataset.features[name], "dtype", "") == "string" for name in dataset.column_names}
    columns: dict[str, bool] = {}
    for row in dataset.take(100):
        for name, value in row.items():
            columns[name] = columns.get(name, False) or isinstance(value, str)
        if any(columns.values()):
            break
    return columns


def _text_column(source: HubSource, columns: dict[str, bool]) -> str:
    known = [name for name in COLUMNS if name in columns]
    strings = [name for name, is_text in columns.items() if is_text]
    if known or len(strings) == 1:
        return (known or strings)[0]
    raise UserError(
        f"which column of {source.name} is the text? Say it: hf:{source.name}#COLUMN ({', '.join(columns)})"
    )


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return text or type(error).__name__


def text_rank(text: str) -> float:
    """A number in [0, 1) that depends on the text alone: documents below a threshold are for validation."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


class DocumentStream:
    """Reads a dataset's documents in order, once; can be put back to where `state` was taken."""

    def __init__(self, source: HubSource, revision: str | None) -> None:
        self.source, self.revision = source, revision
        self._dataset, self.column = open_dataset(source, revision)
        self.seek(None)

    def seek(self, state: dict[str, Any] | None, *, by_reading: bool = False) -> None:
        """Go to where `state()` was taken; None: to the first document.

        by_reading: read as many rows as had been read then, and leave the library's own state aside. That takes
        long, and is right where the library is not (datasets 5.0 loses its place in JSON lines after a resume).
        """
        # Selecting anew gives a dataset that has not been iterated, so that no old state is left.
        self._current = self._dataset.select_columns([self.column])
        if state is not None and not by_reading:
            self._current.load_state_dict(state["library"])
        self._rows: Iterator[dict[str, Any]] = iter(self._current)
        self.ended, self._count = False, 0
        if state is not None and by_reading:
            while self._count < state["rows"] and not self.ended:
                self.read(min(1000, state["rows"] - self._count))
        self._count = state["rows"] if state is not None else 0

    def read(self, count: int) -> list[str]:
        """Up to `count` rows' texts, fewer at the end; rows without text are left out.

        Raises UserError when the source cannot be read on.
        """
        texts = []
        try:
            for _ in range(count):
                row = next(self._rows, None)
                if row is None:
                    self.ended = True
                    break
                self._count += 1
                texts.append(row[self.column])
        except Exception as error:  # network and decoding errors of several libraries
            raise UserError(f"cannot read on in the dataset {self.source.name!r}: {_first_line(error)}") from error
        return [text for text in texts if isinstance(text, str) and text]

    def state(self) -> dict[str, Any]:
        """Where it stands, as a JSON-able dict: by the library, and as the number of rows that were read."""
        return {"library": self._current.state_dict(), "rows": self._count}
