"""What leaves the page and comes back: links, the offline page, a server that is gone for a while, the first visit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_page import NEURON, VALUE, WRITE, logits, node, select

from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.server import ViewerServer, serve

pytestmark = pytest.mark.browser


def touched(page: Any) -> None:
    """A group that is folded, a name, two changes, one at one token, and a node that is pinned."""
    page.click(node(WRITE))
    page.click(node(VALUE), modifiers=["Shift"])
    page.keyboard.press("g")
    page.keyboard.type("pair")
    page.keyboard.press("Enter")
    page.wait_for_selector('.vertex.group[data-id="group:pair"]')
    page.keyboard.press("2")
    page.wait_for_selector("#strip .change")
    page.keyboard.press("Escape")
    select(page, NEURON)
    page.fill('[aria-label="Name of this node"]', "<b>&'\u2028")
    page.keyboard.press("Enter")
    page.keyboard.press(",")
    page.keyboard.press("3")
    page.wait_for_selector("#loss-line")
    page.wait_for_selector(".continued")


def seen(page: Any) -> dict[str, Any]:
    page.wait_for_selector(".continued")
    return {
        "logits": [logits(page, row) for row in (0, 1)],
        "loss": page.inner_text("#loss-line"),
        "continued": page.locator(".continued").first.inner_text(),
        "changes": page.locator("#strip .change").all_inner_texts(),
        "title": page.inner_text("#panel-title"),
        "group": page.locator('.vertex.group[data-id="group:pair"]').count(),
        "activations": page.locator("#panel .side-row .token").evaluate_all("all => all.map(e => e.dataset.value)"),
    }


def test_a_link_holds_what_is_seen(visit: Callable[..., Any]) -> None:
    page = visit()
    touched(page)
    again = visit(page.url[page.url.index("#") :])
    assert seen(again) == seen(page)


def test_the_offline_page_opens_as_it_was_saved(visit: Callable[..., Any], browser: Any, tmp_path: Path) -> None:
    page = visit()
    touched(page)
    page.click("#export summary")
    with page.expect_download() as waited:
        page.click("[data-format=html]")
    file = tmp_path / "saved.html"
    waited.value.save_as(file)
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    troubles: list[str] = []
    try:
        offline = context.new_page()
        offline.on("console", lambda message: troubles.append(message.text))
        offline.on("pageerror", lambda error: troubles.append(str(error)))
        offline.goto(file.as_uri())
        assert seen(offline) == seen(page)
        offline.click("#export summary")
        with offline.expect_download() as waited:  # and saved from there once more
            offline.click("[data-format=html]")
        waited.value.save_as(tmp_path / "again.html")
        offline.goto((tmp_path / "again.html").as_uri())
        assert seen(offline) == seen(page)
        assert offline.locator("script#kept").count() == 1
        offline.keyboard.press("r")
        offline.wait_for_selector("#strip", state="hidden")
        assert offline.locator("#prompts .trouble").count() == 0
        assert troubles == []
    finally:
        context.close()


def test_the_page_goes_on_when_the_server_is_back(browser: Any, run_dir: Path) -> None:
    server = serve(circuit_files(run_dir))
    page = browser.new_page()
    try:
        page.add_init_script("localStorage.setItem('sparsecircuits.guide', 'done')")
        page.goto(server.url)
        page.wait_for_selector(".vertex.token")
        select(page, NEURON)
        page.wait_for_selector("#panel .weights")
        server.close()
        page.keyboard.press("2")
        page.wait_for_selector("#banner >> text=The server has gone")
        server = serve(circuit_files(run_dir), port=server.port)
        page.wait_for_selector("#banner", state="hidden", timeout=30_000)
        page.wait_for_selector("#loss-line", timeout=30_000)
        server.close()
        page.keyboard.press("1")
        page.wait_for_selector("#banner >> text=The server has gone")
        server = serve(circuit_files(run_dir)[1:], port=server.port)
        page.wait_for_selector("#reload", timeout=30_000)  # another circuit is not taken for this one
    finally:
        page.close()
        server.close()


def test_the_first_visit_has_a_guide_that_can_be_dismissed(browser: Any, viewer: ViewerServer) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    try:
        page = context.new_page()
        page.goto(viewer.url)
        page.wait_for_selector("#guide >> text=1 of 4")
        for step in (2, 3, 4):
            page.click("#guide [data-act=next]")
            page.wait_for_selector(f"#guide >> text={step} of 4")
            assert page.locator(".guided").count() == 1
        page.reload()
        page.wait_for_selector("#guide >> text=1 of 4")  # it was not dismissed
        page.click("#guide [data-act=end]")
        page.wait_for_selector("#guide", state="hidden")
        page.reload()
        page.wait_for_selector(".vertex.token")
        assert page.locator("#guide").is_hidden()
        page.keyboard.press("?")
        page.click("[data-act=guide]")
        page.wait_for_selector("#guide >> text=1 of 4")
    finally:
        context.close()


def test_what_is_kept_is_inert(visit: Callable[..., Any], offline_copy: Callable[[Any], Any]) -> None:
    page = visit()
    select(page, NEURON)
    page.fill('[aria-label="Name of this node"]', "</script><script>window.bad=1</script>")
    page.keyboard.press("Enter")
    offline = offline_copy(page)
    assert offline.evaluate("window.bad") is None
    kept = json.loads(offline.locator("script#kept").text_content())
    assert kept["names"] == {NEURON: "</script><script>window.bad=1</script>"}
