"""Tasks of one's own: a JSONL file of pairs, or a Python file that makes a `Task` (docs/tasks.md)."""

import dataclasses
import functools
import json
import random
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.files import json_lines, parse_json, read_text, write_text
from sparsecircuits.tasks.base import SPLITS, Pair, Task

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

MOST_PAIRS = 1000
"""Pairs a split that are drawn from a Python function."""
_HEAD, _PAIR = (
    ("name", "description", "answers", "loss"),
    ("left", "right", "left_rest", "right_rest", "split", "answers"),
)
_PARTS = ("train", "train", "train", "validation", "held_out")  # for pairs whose line names no split


@dataclass(frozen=True)
class FileTask(Task):
    """A task whose pairs are all known. `pairs` gives as many as there are when asked for more."""

    pool: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)
    source: str = ""
    lines: Mapping[Pair, int] = field(default_factory=dict)
    """Where each pair stands in `source`."""
    answers_line: int = 1

    def draw(self, split: str, most: int, seed: int = 0) -> list[Pair]:
        """Up to `most` pairs of a split, in an order that the seed decides."""
        pool = list(self.pool[split])
        random.Random(f"{self.name}/{split}/{seed}").shuffle(pool)
        return pool[:most]

    def pairs(self, split: str = "train", n: int = 64, seed: int = 0) -> list[Pair]:
        """n pairs of a split, or all that it has."""
        return super().pairs(split, max(1, min(n, len(self.pool.get(split, ())))) if n > 0 else n, seed)

    def bind(self, tokenizer: "Tokenizer") -> "Task":
        """This task with a tokenizer. Raises UserError with the line of what it cannot express."""
        try:
            bound = super().bind(tokenizer)
        except UserError as error:
            raise UserError(f"{self.source}, line {self.answers_line}: {error}") from error
        for pair, line in self.lines.items():
            try:
                bound.encode([pair])
            except UserError as error:
                raise UserError(f"{self.source}, line {line}: {error}") from error
        return bound


def load_task_file(path: str | Path) -> FileTask:
    """The task of a `.jsonl` file of pairs, or of a `.py` file.

    A Python file is a program of the user's and is run; it must leave exactly one `Task` at module level,
    of which up to 1,000 pairs a split are drawn. Raises UserError that names the line of a JSONL file:
    broken JSON, an unknown or missing field, equal prompts, a prompt that repeats, a split without pairs.
    """
    path = Path(path)
    if path.suffix == ".py":
        return parse_task(task_text(_python_task(path), MOST_PAIRS), str(path), path.stem)
    if path.suffix != ".jsonl":
        raise UserError(f"{path}: a task file ends in .jsonl (pairs) or .py (a program that makes a Task)")
    return parse_task(read_text(path, "task file"), str(path), path.stem)


def write_task_file(task: Task, path: str | Path, most: int = MOST_PAIRS) -> Path:
    """Write up to `most` pairs of each split of a task as a JSONL task file (all pairs of one read from a file)."""
    return write_text(Path(path), task_text(task, most))


def task_text(task: Task, most: int) -> str:
    """A task as the text of a JSONL task file."""
    rows: list[dict[str, Any]] = [
        {name: getattr(task, name) for name in _HEAD if name != "loss" or task.loss != "pair"}
    ]
    for split in SPLITS:
        pairs = task.pool[split] if isinstance(task, FileTask) else task.draw(split, most)
        rows += [{**dataclasses.asdict(pair), "split": split} for pair in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _python_task(path: Path) -> Task:
    read_text(path, "task file")
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        raise UserError(f"{path} fails: {type(error).__name__}: {error}") from error
    tasks = list({id(value): value for value in found.values() if isinstance(value, Task)}.values())
    if len(tasks) != 1:
        raise UserError(f"{path} makes {len(tasks)} tasks at module level: leave exactly one")
    return tasks[0]


def parse_task(text: str, source: str, default_name: str) -> FileTask:
    """A task from the text of a JSONL task file (see `load_task_file`)."""
    reader = _Reader(source, default_name)
    for number, line in json_lines(text):
        reader.read(number, line)
    return reader.task()


def _choose(pool: Mapping[str, tuple[Pair, ...]], rng: random.Random, split: str) -> Pair:
    return rng.choice(pool[split])


class _Reader:
    """Collects the lines of a task file."""

    def __init__(self, source: str, name: str) -> None:
        self.source, self.name, self.description = source, name, ""
        self.answers: tuple[str, str] | None = None
        self.loss: Literal["pair", "class"] = "pair"
        self.answers_line = 1
        self.lines: dict[Pair, int] = {}
        self.splits: dict[Pair, str] = {}
        self.seen: dict[str, int] = {}

    def read(self, number: int, line: str) -> None:
        """One line: the head (first, may be left out) or a pair."""
        try:
            row = parse_json(line)
        except (ValueError, RecursionError) as error:  # also numbers too long, and brackets too deep, to be read
            raise self._wrong(number, f"no JSON: {error}") from error
        if not isinstance(row, dict):
            raise self._wrong(number, "must be a JSON object")
        is_head = not self.lines and not {"left", "right"} & set(row)
        known = _HEAD if is_head else _PAIR
        for key, value in row.items():
            if key not in known:
                raise self._wrong(number, no_such("unknown field", key, known))
            if key != "answers" and not isinstance(value, str):
                raise self._wrong(number, f"{key} must be text")
        if "answers" in row:
            self._read_answers(number, row["answers"])
        if is_head:
            self.name, self.description = row.get("name", self.name), row.get("description", "")
            self.loss = row.get("loss", self.loss)
            if self.loss not in ("pair", "class"):
                raise self._wrong(number, no_such("no loss", self.loss, ("pair", "class")))
            if not re.fullmatch(r"[A-Za-z0-9][\w-]*", self.name):
                raise self._wrong(number, f"the name {self.name!r} must be letters, digits, _ and -")
        else:
            self._read_pair(number, row)

    def _read_answers(self, number: int, answers: Any) -> None:
        if not (isinstance(answers, list) and len(answers) == 2 and all(isinstance(a, str) and a for a in answers)):
            raise self._wrong(number, "answers must be two texts")
        if answers[0] == answers[1]:
            raise self._wrong(number, f"both answers are {answers[0]!r}")
        if self.answers is None:
            self.answers, self.answers_line = (answers[0], answers[1]), number
        elif self.answers != tuple(answers):
            raise self._wrong(number, f"answers differ from those of line {self.answers_line}: a task has two answers")

    def _read_pair(self, number: int, row: dict[str, Any]) -> None:
        for side in ("left", "right"):
            if not row.get(side):
                raise self._wrong(number, f"{side} is missing")
        if row["left"] == row["right"]:
            raise self._wrong(number, "left and right are the same prompt")
        split = row.get("split", _PARTS[len(self.lines) % len(_PARTS)])
        if split not in SPLITS:
            raise self._wrong(number, no_such("no split", split, SPLITS))
        for side in ("left", "right"):
            earlier = self.seen.setdefault(row[side], number)
            if earlier != number:
                raise self._wrong(number, f"its {side} prompt stands in line {earlier} already")
        pair = Pair(row["left"], row["right"], row.get("left_rest", ""), row.get("right_rest", ""))
        self.lines[pair], self.splits[pair] = number, split

    def task(self) -> FileTask:
        """The task of all lines read."""
        if self.answers is None:
            raise self._wrong(1, 'the answers are missing: begin with {"name": …, "answers": [left, right]}')
        pool = {split: tuple(pair for pair, s in self.splits.items() if s == split) for split in SPLITS}
        for split in SPLITS:
            if not pool[split]:
                raise UserError(f"{self.source} has no pair of split {split}: give some lines that split, or 5 lines")

        sample = functools.partial(_choose, pool)
        return FileTask(
            self.name,
            self.description,
            self.answers,
            sample,
            pool=pool,
            source=self.source,
            lines=self.lines,
            answers_line=self.answers_line,
            loss=self.loss,
        )

    def _wrong(self, number: int, what: str) -> UserError:
        return UserError(f"{self.source}, line {number}: {what}")
