"""The table and plot of many circuits."""

import xml.etree.ElementTree as ET

import pytest

from sparsecircuits.faithfulness.table import geometric_mean_edges, plot, summary, write_table
from sparsecircuits.pruning.size_curve import edges_at, pareto_front

SMALL = [(0, 0, 0.7), (3, 2, 0.4), (6, 5, 0.12), (40, 90, 0.03)]
LARGE = [(0, 0, 0.7), (9, 20, 0.14)]
ROWS = [
    {"model": "sparse", "task": "a|b", "loss": 0.1234567, "loss_full_calibrated": 0.04, "n_nodes": 6, "n_edges": 5},
    {"model": "sparse", "task": "hard", "skipped": "the whole model's loss is 0.7"},
]


def test_the_front_drops_what_is_beaten():
    assert pareto_front([(6, 5, 0.12), (7, 6, 0.12), (3, 2, 0.4), (0, 0, 0.7), (9, 2, 0.5), (40, 90, 0.03)]) == SMALL


def test_edges_at_a_target():
    assert [edges_at(SMALL, target) for target in (0.6, 0.4, 0.15, 0.05, 0.01)] == [2, 2, 5, 90, None]


def test_geometric_mean():
    assert geometric_mean_edges([SMALL, LARGE], 0.15) == pytest.approx(10.0)
    assert geometric_mean_edges([SMALL, LARGE], 0.05) is None
    assert geometric_mean_edges([SMALL], 0.69) == pytest.approx(2.0)
    assert geometric_mean_edges([], 0.15) is None


def test_models_are_compared_on_the_tasks_they_share():
    curves = {"sparse": {"a": SMALL, "only here": LARGE}, "dense": {"a": LARGE}}
    means = {row["model"]: row for row in summary(curves, 0.15)}
    assert means["sparse"]["tasks"] == means["dense"]["tasks"] == ["a"]
    assert (means["sparse"]["geometric_mean_edges"], means["dense"]["geometric_mean_edges"]) == pytest.approx((5, 20))


def test_files(tmp_path):
    curves = {"sparse": {"a": SMALL}, "<dense>": {"a": LARGE}}
    table, picture = write_table(tmp_path, ROWS, curves, 0.15)
    head, _, first, *_ = table.read_text().splitlines()
    of = dict(zip(head.split(" | "), first.replace(r"\|", "/").split(" | "), strict=True))
    assert (of["circuit"], of["whole model"], of["circuit, raw"], of["edges"]) == ("0.1235", "0.04", "-", "5")
    assert r"a\|b" in table.read_text()
    assert "the whole model's loss is 0.7" in table.read_text()
    lines = ET.fromstring(picture.read_text()).iter("{http://www.w3.org/2000/svg}polyline")
    assert sum(1 for _ in lines) == 4
    assert [path.name for path in write_table(tmp_path, ROWS, {"sparse": {}}, 0.15)] == ["table.md"]


def test_larger_targets_lie_to_the_right_and_need_no_more_edges():
    line = next(ET.fromstring(plot({"m": {"a": SMALL}})).iter("{http://www.w3.org/2000/svg}polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert points == sorted(points)
    assert [y for _, y in points] == sorted(y for _, y in points)
