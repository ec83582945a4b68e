"""Where the tests spend processor time: `pytest --processor-seconds FILE`, then `python tests/processor.py FILE`.

Each line of the file is one import of a module, one fixture, or one test less its fixtures, with the processor seconds
of this process and of all that it started, ended or not. Unlike wall time they hardly depend on what else runs.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds() -> float:
    """Of this process and of its descendants, those that have ended included."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system + sum(map(_seconds, _children("self")))


def _children(process: str) -> Iterator[str]:
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            yield from thread.read_text().split()
        except OSError:
            continue


def _seconds(process: str) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK + sum(map(_seconds, _children(process)))


class Recorder:
    """Adds a line to `path` for each import, fixture and test; what is inside another is not counted in that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inside = [0.0]

    def _measured(self, kind: str, name: str) -> Iterator[None]:
        before = processor_seconds()
        self.inside.append(0.0)
        try:
            return (yield)
        finally:
            taken = max(0.0, processor_seconds() - before)  # less: a process ended that nobody waited for
            own = taken - self.inside.pop()
            self.inside[-1] += taken
            with self.path.open("a") as file:
                file.write(json.dumps([kind, name, round(own, 4)]) + "\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        return (yield from self._measured("import", collector.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        return (yield from self._measured("fixture", f"{fixturedef.baseid}::{fixturedef.argname}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        return (yield from self._measured("test", item.nodeid))


def table(lines: list[tuple[str, str, float]], most: int) -> str:
    """Seconds by folder, by module, and of the largest single things."""
    parts: dict[str, dict[str, float]] = {"folder": defaultdict(float), "module": defaultdict(float)}
    each: dict[str, float] = defaultdict(float)
    for kind, name, seconds in lines:
        module = name.split("::")[0]
        parts["folder"][os.path.dirname(module)] += seconds
        parts["module"][module] += seconds
        each[f"{kind} {name}"] += seconds
    parts["one"] = each
    rows = [f"{sum(each.values()):8.1f} all"]
    for part, values in parts.items():
        rows.append(f"\n{part}")
        rows += [f"{s:8.1f} {name}" for name, s in sorted(values.items(), key=lambda pair: -pair[1])[:most]]
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=40)
    given = parser.parse_args()
    lines = [json.loads(line) for file in given.files for line in file.read_text().splitlines()]
    sys.stdout.write(table(lines, given.most) + "\n")
