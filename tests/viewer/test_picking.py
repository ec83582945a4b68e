"""What a click, a name or a group leaves behind on the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_page import NEURON, WRITE, node, select
from waiting import at_rest, true_on

from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.server import serve

pytestmark = pytest.mark.browser


TITLES = {"residual": "Residual stream", "embedding": "Embedding", "logit": "Unembedding", "edge": "Edge"}


@pytest.mark.parametrize(("kind", "title"), TITLES.items())
def test_every_line_can_be_pinned(visit: Callable[..., Any], kind: str, title: str) -> None:
    page = visit()
    line = page.locator(f"#picture .link.{kind}").first
    name = line.get_attribute("data-name")
    line.locator(".hit").dispatch_event("click")
    page.wait_for_selector("#panel.pinned")
    assert page.inner_text("#panel-title") == title
    assert name in page.inner_text("#panel .full-name")
    assert page.locator("#panel .touch").count() == (1 if kind == "edge" else 0)
    again = visit(page.url[page.url.index("#") :])
    again.wait_for_selector("#panel.pinned >> text=" + title)


def test_after_a_name_keys_are_shortcuts_again(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    page.fill('[aria-label="Name of this node"]', "detector")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector")
    page.keyboard.press("c")
    page.wait_for_selector("#drawer >> text=Faithfulness card")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector", state="detached")


def test_a_grouped_node_does_not_stay_lit(visit: Callable[..., Any]) -> None:
    page = visit()
    page.hover(node(NEURON))
    page.keyboard.press("/")
    page.keyboard.type(NEURON)
    page.fill("input[name=group]", "detector")
    page.keyboard.press("Enter")
    page.wait_for_selector('.vertex.group[data-id="group:detector"]')
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#picture .lit, #picture .chosen, #picture .focus").count() == 0
    assert page.locator("#panel.pinned").count() == 0
    page.click(".vertex.group")
    page.click("text=Dissolve")
    page.wait_for_selector(node(WRITE))


def test_a_damaged_file_is_not_opened_first(browser: Any, run_dir: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad" / "circuit.json"
    bad.parent.mkdir()
    bad.write_text("{")
    server = serve([bad, circuit_files(run_dir)[0]])
    page = browser.new_page()
    try:
        page.goto(server.url)
        page.wait_for_selector("#picture .vertex")
        page.select_option("#circuits", index=0)
        page.wait_for_selector("#note >> text=not valid JSON")
    finally:
        page.close()
        server.close()


def test_a_click_while_the_picture_is_drawn_anew_is_not_lost(visit: Callable[..., Any]) -> None:
    """What nodes fire on comes late, and the picture with it: between the button's way down and its way up."""
    page = visit("#circuit=1", live=False)
    held: list[Any] = []
    page.route("**/words", lambda route: held.append(route))
    page.reload()
    with page.expect_request("**/words"):
        page.wait_for_selector(".vertex.token", timeout=60_000)
    at_rest(page)
    page.hover(node(NEURON))
    page.mouse.down()
    with page.expect_response("**/words", timeout=60_000):
        held[0].continue_()
    at_rest(page)
    page.mouse.up()
    page.wait_for_selector("#panel.pinned")
    assert NEURON in page.inner_text("#panel .full-name")


def test_what_the_browser_scrolls_to_is_in_sight(visit: Callable[..., Any]) -> None:
    """A screen reader asks for it, or a search in the page: the picture moves there."""
    page = visit()
    page.set_viewport_size({"width": 900, "height": 420})
    true_on(page, "innerHeight === 420")
    at_rest(page)
    box = page.locator("#canvas").bounding_box()
    low = page.locator("#picture .vertex.token").first
    assert low.bounding_box()["y"] > box["y"] + box["height"]
    low.evaluate("e => e.scrollIntoView({ block: 'nearest' })")
    true_on(page, "document.querySelector('#canvas').scrollTop === 0")
    at_rest(page)
    place = low.bounding_box()
    assert box["y"] <= place["y"]
    assert place["y"] + place["height"] <= box["y"] + box["height"] + 1
