"""`metrics.jsonl`: one JSON object a line, flushed as it is written."""

import json
from pathlib import Path
from typing import Any

from sparsecircuits.errors import UserError
from sparsecircuits.files import write_text

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Append metrics of a run; on resume, drop the lines that are later than the checkpoint."""

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        self.path = Path(directory) / METRICS_NAME
        kept = [] if resume_step is None else [m for m in read_metrics(self.path) if m["step"] <= resume_step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def write(self, **values: Any) -> None:
        """Append one line."""
        try:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file (a line cut short by a kill is left out); [] if there is none."""
    if not Path(path).exists():
        return []
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
