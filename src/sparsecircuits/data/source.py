"""One source file, by name and text, and what reading a place gave."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceFile:
    """A file of a corpus; `name` is unique there and tells the source ("stdlib/json/decoder.py")."""

    name: str
    text: str


@dataclass(frozen=True)
class Reading:
    """The files that were taken from one source, out of `found`; `left_out` counts the others by reason."""

    files: list[SourceFile]
    found: int
    left_out: Mapping[str, int] = field(default_factory=Counter)

    def describe(self, where: str) -> str:
        """One line: how many of the files at `where` were read, and why the others were not."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(self.left_out.items()))
        return f"read {len(self.files)} of {self.found} files of {where}" + (
            f"; left out: {reasons}" if reasons else ""
        )

    def record(self) -> dict[str, Any]:
        """The counts, JSON-able."""
        return {"found": self.found, "read": len(self.files), "left_out": dict(self.left_out)}
