"""Two circuits side by side: each with its own prompts, activations, scores and zoom; layers level."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_page import select
from waiting import at_rest, eventually

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.server import ViewerServer, serve

pytestmark = pytest.mark.browser
LEFT_BY_ID = """all => all.sort((a, b) => a.dataset.id < b.dataset.id ? -1 : 1)
  .map(e => e.getBoundingClientRect().x)"""


@pytest.fixture(scope="module")
def two(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewerServer]:
    """The smaller circuit left; right the larger one, of the same model on another task's prompts."""
    folder = tmp_path_factory.mktemp("two")
    first, second = circuit_files(run_dir)[:2]
    larger = sc.Circuit.load(first).model_copy(update={"task": "single_double_quote"})
    paths = [sc.Circuit.load(second).save(folder / "a" / "circuit.json"), larger.save(folder / "b" / "circuit.json")]
    server = serve(paths, model=run_dir)
    yield server
    server.close()


@pytest.fixture
def page(browser: Any, two: ViewerServer) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    opened = context.new_page()
    opened.goto(two.url)
    opened.wait_for_selector(".vertex.token", timeout=60_000)
    opened.select_option("#compare", index=1)
    opened.wait_for_selector("#other-picture .vertex", timeout=60_000)
    opened.wait_for_selector('[data-side="right"] .prompt')
    at_rest(opened)
    yield opened
    context.close()


def tokens(page: Any, side: str) -> list[list[str]]:
    blocks = page.locator(f'#prompts [data-side="{side}"] .prompt')
    return [block.locator(".token").all_inner_texts() for block in blocks.all()]


def values(page: Any, side: str) -> list[list[float | None]]:
    blocks = page.locator(f'#prompts [data-side="{side}"] .prompt')
    return [
        block.locator(".token").evaluate_all("all => all.map(e => 'value' in e.dataset ? +e.dataset.value : null)")
        for block in blocks.all()
    ]


def test_a_node_of_the_right_alone_is_shown_on_the_rights_prompts(page: Any) -> None:
    left, right = "left", "right"
    names = [
        set(page.eval_on_selector_all(f"{which} .vertex.node", "all => all.map(e => e.dataset.name)"))
        for which in ("#picture", "#other-picture")
    ]
    own = sorted(names[1] - names[0])[0]
    shared = sorted(names[0] & names[1])[0]
    assert tokens(page, left) != tokens(page, right)
    page.locator(f'#other-picture .vertex[data-name="{own}"]').hover()
    page.wait_for_selector('[data-side="left"] >> text=Not in this circuit')
    assert all(value is None for row in values(page, left) for value in row)
    shown = values(page, right)
    assert any(value for row in shown for value in row)
    page.locator(f'#picture .vertex[data-name="{shared}"]').hover()
    eventually(lambda: all(v is not None for side in (left, right) for row in values(page, side) for v in row), True)
    assert page.locator(f'#other-picture .vertex.chosen[data-name="{shared}"]').count() == 1  # in step
    page.locator(f'#other-picture .vertex[data-name="{own}"]').click()
    page.wait_for_selector("#panel.pinned")
    assert page.locator('#panel .sides[data-side="right"]').count() == 1
    assert page.locator('#panel .sides[data-side="left"]').count() == 0
    assert page.locator(f'#picture .vertex[data-name="{own}"]').count() == 0


def test_each_side_has_its_own_scores(page: Any) -> None:
    for side in ("left", "right"):
        margins = page.locator(f'#prompts [data-side="{side}"] .prompt .margin')
        assert margins.count() == 4  # whole model and circuit alone, of both prompts
    left, right = (
        page.locator(f'#prompts [data-side="{side}"] .margin').evaluate_all("all => all.map(e => e.dataset.logits)")
        for side in ("left", "right")
    )
    assert left != right


def test_zoom_is_each_sides_own_and_layers_are_level(page: Any) -> None:
    def box(which: str, name: str) -> dict[str, float]:
        found: dict[str, float] = page.locator(f'{which} .vertex[data-name="{name}"]').bounding_box()
        return found

    shared = "0.mlp.post_act.5"
    left, right = box("#picture", shared), box("#other-picture", shared)
    assert left["y"] == pytest.approx(right["y"], abs=1.5)
    assert left["height"] == pytest.approx(right["height"], abs=0.5)
    page.click("#other-zoom-in")
    assert box("#other-picture", shared)["width"] > 1.15 * right["width"]
    assert box("#picture", shared)["width"] == pytest.approx(left["width"], rel=0.01)
    page.click("#zoom-in")
    assert box("#picture", shared)["width"] > 1.15 * left["width"]
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_what_comes_late_leaves_each_sides_zoom(browser: Any, two: ViewerServer) -> None:
    """The words under the nodes are drawn when they are there."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    held: list[Any] = []
    try:
        page = context.new_page()
        page.route("**/words", lambda route: held.append(route))
        page.goto(two.url)
        page.wait_for_selector(".vertex.token", timeout=60_000)
        page.select_option("#compare", index=1)
        page.wait_for_selector("#other-picture .vertex", timeout=60_000)
        at_rest(page)
        page.click("#other-zoom-in")
        at_rest(page)
        width = page.locator("#other-picture .vertex.answer").first.bounding_box()["width"]
        eventually(lambda: page.evaluate("1") and len(held), 2)
        answered: list[Any] = []
        page.on("requestfinished", lambda request: answered.append(request) if "words" in request.url else None)
        for route in held:
            route.continue_()
        eventually(lambda: page.evaluate("1") and len(answered), 2)
        at_rest(page)
        after = page.locator("#other-picture .vertex.answer").first.bounding_box()["width"]
        assert after == pytest.approx(width, rel=0.02)
    finally:
        context.close()


def test_a_name_in_another_model_is_another_node(visit: Callable[..., Any]) -> None:
    page = visit()
    page.select_option("#compare", index=2)
    page.wait_for_selector("text=different models", timeout=60_000)
    page.hover('#other-picture .vertex[data-name="0.mlp.post_act.5"]')
    page.wait_for_selector("#other-picture .vertex.chosen")
    assert page.locator("#picture .vertex.chosen").count() == 0
    select(page, "0.mlp.post_act.5")
    assert page.locator("#picture .vertex.chosen").count() == 1
    assert page.locator("#other-picture .vertex.chosen").count() == 0


def test_two_circuits_of_one_task_and_model_have_names_of_their_own(page: Any) -> None:
    names = [page.inner_text("#this-title"), page.inner_text("#other-title")]
    options = page.locator("#circuits option").all_inner_texts()
    assert len(set(names)) == 2
    assert len(set(options)) == len(options)


def test_circuits_alike_but_for_their_content_are_told_apart(browser: Any, run_dir: Path, tmp_path: Path) -> None:
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    other = circuit.model_copy(update={"target_loss": 0.2})
    folders = [tmp_path / "run" / "circuits" / name / "circuit.json" for name in "ab"]
    server = serve([each.save(path) for each, path in zip((circuit, other), folders, strict=True)], model=run_dir)
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    try:
        opened = context.new_page()
        opened.goto(server.url)
        opened.wait_for_selector(".vertex.token", timeout=60_000)
        opened.select_option("#compare", index=1)
        opened.wait_for_selector("#other-picture .vertex", timeout=60_000)
        at_rest(opened)
        assert opened.inner_text("#this-title") != opened.inner_text("#other-title").split(" End")[0]
        for picture in ("#picture", "#other-picture"):
            left = opened.eval_on_selector_all(f"{picture} .vertex.answer", LEFT_BY_ID)
            assert left == sorted(left)
            assert len(left) == 2
    finally:
        context.close()
        server.close()
