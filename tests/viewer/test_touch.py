"""Touching nodes: several at once, at one token, how the prompts go on, and how long it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_page import NEURON, VALUE, WRITE, logits, node, select

import sparsecircuits as sc
from sparsecircuits.circuits.run_with import answer_logits, run_with
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.payload import shown_pairs

pytestmark = pytest.mark.browser


def places(page: Any) -> dict[str, tuple[float, float]]:
    """Where the middles of vertices are on the screen."""
    found = page.eval_on_selector_all(
        "#picture .vertex",
        "all => all.map(e => { const b = e.querySelector('rect').getBoundingClientRect();"
        " return [e.dataset.id, b.x + b.width / 2, b.y + b.height / 2]; })",
    )
    return {name: (x, y) for name, x, y in found}


def test_what_a_node_does_stands_first(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    tops = [
        page.locator(f"#panel {part}").first.bounding_box()["y"]
        for part in (".sides", ".touch", ".tools-row", ".facts")
    ]
    assert tops == sorted(tops)
    panel = page.locator("#panel").bounding_box()
    touch = page.locator("#panel .touch").bounding_box()
    assert touch["y"] + touch["height"] <= panel["y"] + panel["height"]  # without scrolling
    assert page.locator("#panel .side-row").first.bounding_box()["y"] < touch["y"] - 20


def test_several_nodes_are_changed_and_grouped_together(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    page.click(node(NEURON))
    for name in (WRITE, VALUE, WRITE, WRITE):  # a second click takes it out, a third puts it back
        page.click(node(name), modifiers=["Shift"])
    assert page.inner_text("#panel-title") == "3 nodes"
    assert page.locator("#picture .chosen").count() == 3
    assert "at=nodes%3A" in page.url
    page.keyboard.press("2")
    page.wait_for_selector("#loss-line")
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(circuit_files(run_dir)[0])
    batch = shown_pairs(sc.get_task(circuit.task, model.tokenizer)).rows(0, 2)
    changes = [sc.Intervention(kind="zero", target=name) for name in (NEURON, WRITE, VALUE)]
    wanted = answer_logits(circuit, run_with(model, circuit, batch, changes, scope="circuit"), batch.answers, "circuit")
    assert logits(page, 1) == pytest.approx(wanted[1].tolist(), abs=1e-3)
    again = visit(page.url[page.url.index("#") :])
    again.wait_for_selector("#panel-title >> text=3 nodes")
    page.keyboard.press("r")
    before = places(page)
    page.keyboard.press("g")
    page.keyboard.type("circle")
    page.keyboard.press("Enter")
    page.wait_for_selector('.vertex.group[data-id="group:circle"]')
    assert page.inner_text("#panel-title") == "Group circle"
    grouped = places(page)
    kept = grouped.keys() & before.keys()
    assert kept == before.keys() - {NEURON, WRITE, VALUE}
    for name in kept:
        assert grouped[name] == pytest.approx(before[name], abs=1.5), name
    page.click("text=Unfold")
    page.wait_for_selector(node(NEURON))
    for name, place in places(page).items():
        assert place == pytest.approx(before[name], abs=1.5), name


def test_a_node_is_changed_at_one_token(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    select(page, NEURON)
    chips = page.locator("#panel .side-row.left .token")
    place = 2
    chips.nth(chips.count() - 1 - place).click()
    assert page.locator("#panel .token.chosen").count() == 3  # on both prompts, and in their difference
    assert "2 tokens before the last" in page.inner_text("#panel .at-token")
    page.keyboard.press("]")  # × 1.5
    for _ in range(5):
        page.keyboard.press("]")
    page.wait_for_selector('#strip .change >> text="×4"')
    page.wait_for_selector("#loss-line")
    assert "last − 2" in page.inner_text("#strip .change")
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(circuit_files(run_dir)[0])
    batch = shown_pairs(sc.get_task(circuit.task, model.tokenizer)).rows(0, 2)
    change = sc.Intervention(kind="scale", factor=4, target=NEURON, before_last=place)
    wanted = answer_logits(
        circuit, run_with(model, circuit, batch, [change], scope="circuit"), batch.answers, "circuit"
    )
    for row in (0, 1):
        assert logits(page, row) == pytest.approx(wanted[row].tolist(), abs=1e-3)
    page.keyboard.press("2")
    page.click("#panel .at-token button")  # at every token: another change beside it
    page.keyboard.press("1")
    page.wait_for_selector("#strip .change >> nth=1")
    page.wait_for_selector("#loss-line")
    again = visit(page.url[page.url.index("#") :])
    again.wait_for_selector("#loss-line")
    assert logits(again) == pytest.approx(logits(page), abs=1e-3)
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert "1 token before the last" in page.inner_text("#panel .at-token")
    for _ in range(2):
        page.keyboard.press(".")
    assert "At every token" in page.inner_text("#panel .at-token")


def test_how_the_prompts_go_on_is_shown(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    assert page.locator(".continued").count() == 0
    page.keyboard.press("2")
    page.wait_for_selector(".prompt[data-prompt='1'] .continued")
    on = page.locator(".prompt[data-prompt='1'] .continued")
    assert on.get_attribute("data-before").startswith('"')
    assert "goes on, circuit alone" in on.inner_text()
    page.keyboard.press("t")
    page.fill("textarea[name=prompt]", "y = ('left")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".own-prompt .continued")


def test_answers_wait_for_nothing_else(visit: Callable[..., Any]) -> None:
    """Neither for the loss nor for the text; `benchmarks/viewer.py` says how long they take."""
    page = visit()
    held: list[Any] = []
    for slow in ("**/loss", "**/continued", "**/nodes/*"):
        page.route(slow, lambda route: held.append(route))
    select(page, NEURON)
    shown = []
    for key in "124":
        page.keyboard.press(key)
        page.wait_for_selector(".prompt .margin.after")
        shown.append(logits(page))
        page.keyboard.press("r")
        page.wait_for_selector(".prompt .margin.after", state="detached")
    assert len({tuple(each) for each in shown}) > 1
    assert page.evaluate("performance.getEntriesByName('round trip').length") >= 3
    assert held
    for route in held:
        route.continue_()


def test_the_last_of_fast_changes_is_answered(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    for key in "1234124131":
        page.keyboard.press(key)
    page.keyboard.press("2")
    page.wait_for_selector("#loss-line")
    fast = logits(page)
    page.keyboard.press("r")
    page.keyboard.press("2")
    page.wait_for_selector("#loss-line")
    assert logits(page) == fast
