"""The command `backups`, as a user runs it."""

import json

import pytest

from forked import run
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.storage import save_native
from sparsecircuits.planted.models import QUOTE_NODES, SECOND_NODES, two_way_model

OPTIONS = ("--steps", 40, "--pairs", 8, "--eval-pairs", 24, "--restarts", 0, "--lr", 0.04, "--seeds", 1)


@pytest.fixture(scope="module")
def two_ways(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("runs") / "two-ways"
    save_native(two_way_model(Tokenizer.default(), 6.0), folder, {"train": {"data": str(corpus)}})
    return folder


def test_both_ways_are_saved_and_said(two_ways):
    stale = two_ways / "circuits" / "single_double_quote.plain" / "backups" / "3" / "circuit.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    done = run("backups", two_ways, "single_double_quote.plain", *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {tuple(way["nodes"]) for way in found["ways"]} == {tuple(QUOTE_NODES), tuple(SECOND_NODES)}
    assert (found["core"], found["exhausted"], found["overlap"]) == ([], True, None)
    *circuits, record = found["paths"]
    assert len(circuits) == 2
    assert not stale.exists()
    with open(record) as file:
        assert json.load(file) == {name: value for name, value in found.items() if name != "paths"}
    reported = run("report", stale.parents[1], "--json")
    assert reported.returncode == 0, reported.stderr
    cards = json.loads(reported.stdout)["reports"]
    assert [card["holds_target"] for card in cards] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one task, or give --task-file"),
        (("single_double_quote.plain", "--most", 0), "most must be at least 1"),
        (("single_double_quote.plain", "--target-loss", 2), "target_loss must lie"),
    ],
)
def test_wrong_uses_are_one_line(two_ways, arguments, words):
    done = run("backups", two_ways, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
