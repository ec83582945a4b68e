"""`metrics.jsonl`: one JSON object a line, flushed as it is written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sparsecircuits.errors import UserError
from sparsecircuits.files import json_lines, read_text, write_text
from sparsecircuits.runs import METRICS_NAME


class Logger(Protocol):
    """Somewhere else that metrics go, as they are written."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Finish."""


class MetricsLog:
    """Append metrics of a run; on resume, drop the lines that are later than the checkpoint."""

    def __init__(self, directory: Path, resume_step: int | None = None, loggers: Sequence[Logger] = ()) -> None:
        self.loggers = loggers
        self.path = Path(directory) / METRICS_NAME
        kept = [] if resume_step is None else [m for m in read_metrics(self.path) if m["step"] <= resume_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by close)

    def write(self, **values: Any) -> None:
        """Append one line, and pass its numbers on to the loggers."""
        try:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        numbers = {name: value for name, value in values.items() if name != "step" and not isinstance(value, bool)}
        for logger in self.loggers:
            logger.log(values["step"], numbers)

    def close(self) -> None:
        """Close the file and the loggers."""
        self._file.close()
        for logger in self.loggers:
            logger.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file: objects with a step. A line cut short by a kill is left out, and what is no
    such object; [] if there is no file. Raises UserError for a file that cannot be read."""
    if not Path(path).exists():
        return []
    return [found for _, line in json_lines(read_text(path, "metrics")) if (found := _parsed(line)) is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = found.get("step") if isinstance(found, dict) else None
    return found if isinstance(step, int | float) and not isinstance(step, bool) else None
