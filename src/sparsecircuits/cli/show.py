"""What the user sees: progress on stderr, tables and JSON on stdout."""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

STDERR = Console(stderr=True, highlight=False)
# In a file or a pipe there is room: 80 columns, Rich's guess, fold the names of tasks.
STDOUT = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
Update = Callable[[float, str], None]
PLAIN_INTERVAL = 10.0  # seconds between progress lines where stderr is no terminal


def say(text: str) -> None:
    """One line for a person (stderr, so that stdout stays machine-readable)."""
    STDERR.print(text, markup=False, soft_wrap=True)


class _Said(logging.Handler):
    """What the package logs for a person, said."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def listen() -> None:
    """Say from now on what the package logs, such as how many files of a corpus were read."""
    logger = logging.getLogger("sparsecircuits")
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())
    logger.setLevel(logging.INFO)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")


def print_text(text: str) -> None:
    """Plain text on stdout."""
    sys.stdout.write(text + "\n")


def print_table(title: str, columns: list[str], rows: list[list[Any]], right: tuple[int, ...] = ()) -> None:
    """A table on stdout; `right` names the columns to align right."""
    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for place, column in enumerate(columns):
        # The first column names the row: where the console is narrow, the others fold.
        justify, first = "right" if place in right else "left", place == 0
        table.add_column(column, justify=justify, overflow="fold", no_wrap=first)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    STDOUT.print(table, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def silent(_label: str) -> Iterator[Update]:
    """What `progress` yields, showing nothing."""
    yield lambda _share, _details: None


@contextlib.contextmanager
def progress(label: str) -> Iterator[Update]:
    """Yield update(share done in 0..1, details). A bar on a terminal, else a line every few seconds."""
    if STDERR.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[details]}"),
        )
        with Progress(*columns, console=STDERR, refresh_per_second=4) as bar:
            task = bar.add_task(label, total=1.0, details="")
            yield lambda share, details: bar.update(task, completed=share, details=details)
        return
    last = [time.monotonic() - PLAIN_INTERVAL]

    def plain(share: float, details: str) -> None:
        if time.monotonic() - last[0] >= PLAIN_INTERVAL or share >= 1:
            last[0] = time.monotonic()
            say(f"{label} {share:4.0%}  {details}")

    yield plain
