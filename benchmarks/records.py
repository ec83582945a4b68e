"""Records of long benchmarks, a JSON line each: what is there already need not be run again."""

import json
from pathlib import Path
from typing import Any


def read_records(path: Path, **fields: Any) -> list[dict[str, Any]]:
    """The records so far that have these fields; none where there is no file yet."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    records = [json.loads(line) for line in lines if line]  # the last line ends, so that nothing stands behind it
    return [record for record in records if all(record[name] == value for name, value in fields.items())]


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Append one, and show it."""
    print(record, flush=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(record) + "\n")
