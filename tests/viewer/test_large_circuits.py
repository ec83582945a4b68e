"""A circuit of hundreds of nodes: the most important ones are drawn and read, and the rest of each row is one box."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sample_payload import random_payload
from test_legible import SIZES, SMALLEST
from waiting import at_rest, eventually, true_on

pytestmark = pytest.mark.browser


def boxes(page: Any) -> tuple[int, int]:
    return page.locator("#picture .vertex.node").count(), page.locator("#picture .vertex.group").count()


def test_the_rest_of_each_row_is_one_box(show: Callable[..., Any]) -> None:
    payload = random_payload(207, 4)
    page = show(payload)
    at_rest(page)
    nodes, groups = boxes(page)
    assert nodes < 80
    assert groups > 3
    labels = page.eval_on_selector_all("#picture .vertex.group .name", "all => all.map(e => e.textContent)")
    gathered = sum(int(re.match(r"\d+", label)[0]) for label in labels)
    assert nodes + gathered == 207  # none is lost
    assert min(page.eval_on_selector_all("#picture text", SIZES)) >= SMALLEST - 0.05
    drawn = set(page.eval_on_selector_all("#picture .vertex.node", "all => all.map(e => e.dataset.name)"))
    best = sorted(payload["nodes"], key=lambda n: -(n["importance"] or 0))[:56]
    assert {n["name"] for n in best} <= drawn


def test_all_nodes_are_drawn_when_asked_for_and_a_link_keeps_it(show: Callable[..., Any]) -> None:
    page = show(random_payload(207, 4))
    page.click('#drawn [data-whole="1"]')
    eventually(lambda: boxes(page), (207, 0))
    true_on(page, "location.hash.includes('whole=1')")
    page.reload()
    page.wait_for_selector("#picture .vertex")
    eventually(lambda: boxes(page), (207, 0))
    page.click('#drawn [data-whole="0"]')
    eventually(lambda: boxes(page)[1] > 3, True)


def test_a_box_says_what_is_in_it(show: Callable[..., Any]) -> None:
    page = show(random_payload(207, 4))
    at_rest(page)
    box = page.locator("#picture .vertex.group").first
    label = box.locator(".name").text_content()
    box.click()
    page.wait_for_selector("#panel.pinned")
    assert label in page.inner_text("#panel-title")
    count = int(re.match(r"\d+", label)[0])
    assert page.locator("#panel .edges .edge-row").count() == count
    name = page.locator("#panel .edges .edge-row").first.get_attribute("data-to")
    page.click(f'#panel .edges [data-to="{name}"]')
    eventually(lambda: name in page.inner_text("#panel"), True)
    page.wait_for_selector("#picture .vertex.group.lit")  # where it is drawn


def test_without_importances_the_way_to_the_answers_counts(show: Callable[..., Any]) -> None:
    """What writes the answers is drawn though no importance was measured; no head is shown as fixed that is not."""
    payload = random_payload(207, 4)
    for node in payload["nodes"]:
        node["importance"] = None
    page = show(payload)
    at_rest(page)
    assert "not measured" in page.get_attribute('#drawn [data-whole="0"]', "title")
    read = {line["source"] for line in payload["logits"]}
    drawn = set(page.eval_on_selector_all("#picture .vertex.node", "all => all.map(e => e.dataset.name)"))
    assert read & drawn
    scored = {f"{n['layer']}.{n['head']}" for n in payload["nodes"] if n["site"] in ("attn.q", "attn.k")}
    fixed = page.eval_on_selector_all("#picture .gate.fixed", "all => all.map(e => e.dataset.head)")
    assert not scored & set(fixed)


@pytest.mark.parametrize("size", [(1280, 720), (1024, 700), (1920, 1080)])
def test_nothing_below_the_picture_is_clipped(show: Callable[..., Any], size: tuple[int, int]) -> None:
    payload = random_payload(207, 4)
    sizes = [{"size": n, "loss": 0.1} for n in (1, 50, 207)]
    order = [n["name"] for n in payload["nodes"]]
    payload["curve"] = {"order": order, "points": sizes, "split": "held-out", "n_prompts": 96}
    page = show(payload, *size)
    page.wait_for_selector("#sizes:not([hidden]) output")
    stage = page.locator(".stage").bounding_box()
    ends = page.eval_on_selector_all(
        ".foot-bar button, .foot-bar .key, .foot-bar output, .foot-bar input",
        "all => all.map(e => e.getBoundingClientRect().right)",
    )
    assert max(ends) <= stage["x"] + stage["width"]


def test_a_circuit_of_150_is_drawn_as_it_is(show: Callable[..., Any]) -> None:
    page = show(random_payload(150, 2))
    assert boxes(page) == (150, 0)
    assert page.locator("#drawn").count() == 0
