"""What the picture says can be read: captions of what nodes fire on, and words that are never small."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_payload import quote_payload, random_payload
from test_page import NEURON, VALUE, node, select
from waiting import at_rest, eventually, true_on

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.viewer.server import serve

pytestmark = pytest.mark.browser
SMALLEST = 11  # pixels
SIZES = """all => all.filter(e => e.textContent.trim()).map(e => {
  const scale = e.getScreenCTM().a; return parseFloat(getComputedStyle(e).fontSize) * scale; })"""

EXTENT = """() => {
  const all = [...document.querySelectorAll('#picture .vertex, #picture .line, #picture text')];
  const boxes = all.map(e => e.getBoundingClientRect());
  return [Math.min(...boxes.map(b => b.left)), Math.min(...boxes.map(b => b.top)),
    Math.max(...boxes.map(b => b.right)), Math.max(...boxes.map(b => b.bottom))]; }"""


def words(payload: dict[str, Any], precision: float, **rule: Any) -> dict[str, Any]:
    """The payload with what its nodes fire on."""
    entry = {"above": True, "tokens": [], "place": None, "answer": None, "recall": 1.0, "words": "is above 1", **rule}
    payload["words"] = [{**entry, "name": n["name"], "precision": precision} for n in payload["nodes"]]
    return payload


def captions(page: Any) -> dict[str, str]:
    found = page.eval_on_selector_all(
        "#picture .vertex.node", "all => all.map(e => [e.dataset.name, e.querySelector('.caption')?.textContent ?? ''])"
    )
    return dict(found)


def test_the_card_says_under_each_node_what_it_fires_on(visit: Callable[..., Any], run_dir: Path) -> None:
    card = json.loads(circuit_files(run_dir)[0].with_name("report.json").read_text())
    assert card["mode"] == "quick"
    rules = {entry["name"]: entry for entry in card["descriptions"]}
    page = visit()
    shown = captions(page)
    for name, entry in rules.items():
        good = entry["rule"] is not None and entry["precision"] is not None and entry["precision"] >= 0.5
        assert bool(shown[name]) == good, name
    tokens = next(e for e in rules.values() if shown[e["name"]] and e["rule"]["tokens"])
    on = " ".join(token.replace(" ", "·") for token in tokens["rule"]["tokens"])
    assert shown[tokens["name"]] == f"{'fires' if tokens['above'] else 'low'} on {on}"
    select(page, NEURON)
    assert rules[NEURON]["words"] in page.inner_text("#panel .card-words")  # the whole rule, precision and recall
    page.fill('[aria-label="Name of this node"]', "detector")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector")
    assert captions(page)[NEURON] == ""  # the user's name wins
    page.fill('[aria-label="Name of this node"]', "")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector", state="detached")


def test_a_circuit_without_a_card_has_captions_too(visit: Callable[..., Any]) -> None:
    page = visit("#circuit=1")
    page.wait_for_selector("#picture .caption", timeout=60_000)
    select(page, VALUE)
    eventually(lambda: "precision" in page.inner_text("#panel"), True)  # words come after which answer it is higher for


@pytest.mark.parametrize(
    ("rule", "precision", "caption"),
    [
        ({"tokens": ["('"]}, 0.5, "fires on ('"),
        ({"tokens": [" ('", "\n"]}, 0.9, "fires on ·(' ↵"),
        ({"tokens": ["('"], "above": False}, 0.9, "low on ('"),
        ({"place": "last", "answer": '")'}, 0.9, 'fires at the end for ")'),
        ({"place": "difference"}, 0.9, "fires where pairs differ"),
        ({"tokens": ["abcdefgh"] * 3}, 0.9, "fires on abcdefgh abcde…"),
        ({"tokens": ["('"]}, 0.49, ""),
        ({}, 1.0, ""),
    ],
)
def test_captions(show: Any, rule: dict[str, Any], precision: float, caption: str) -> None:
    page = show(words(quote_payload(), precision, **rule))
    assert set(captions(page).values()) == {caption}


@pytest.mark.parametrize("n_nodes", [12, 30, 100])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_words_are_never_small(show: Any, n_nodes: int, size: tuple[int, int]) -> None:
    """And nothing lies under the zoom buttons when the picture opens, nor do labels lie over each other."""
    payload = words(random_payload(n_nodes, 2), 0.9, tokens=["('", '("'])
    page = show(payload, *size)
    at_rest(page)
    assert min(page.eval_on_selector_all("#picture text", SIZES)) >= SMALLEST - 0.05
    small = page.evaluate(
        "[...document.querySelectorAll('body *:not(svg *)')].filter(e => e.checkVisibility() && "
        "[...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && "
        "parseFloat(getComputedStyle(e).fontSize) < 11)"
        ".map(e => e.className)"
    )
    assert small == []
    before = page.locator(".vertex.answer").first.bounding_box()["y"]
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, 120)
    if page.evaluate("document.querySelector('#picture').getBoundingClientRect().height") > box["height"]:
        answer = page.locator(".vertex.answer").first  # the wheel turns the page over
        eventually(lambda: before - answer.bounding_box()["y"], pytest.approx(120, abs=2))


def test_a_large_circuit_is_seen_whole_and_read_at_first_sight(browser: Any, tmp_path: Path) -> None:
    """41 nodes in four layers, in a window of 1440x900 less the strip of a page that runs."""
    folder = folder_of("pretrained:apt")
    circuit = sc.Circuit.load(folder / "circuits" / "set_or_string_fixedvarname" / "circuit.json")
    file = tmp_path / "page.html"
    file.write_text(sc.show(circuit, sc.load_model(folder)).page, encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 856})
    try:
        page = context.new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("#picture .vertex.token")
        at_rest(page)
        assert page.locator("#picture .vertex.node").count() == len(circuit.nodes) == 41
        canvas = page.locator("#canvas").bounding_box()
        left, top, right, bottom = page.evaluate(EXTENT)
        assert canvas["x"] <= left
        assert canvas["y"] <= top
        assert right <= canvas["x"] + canvas["width"]
        assert bottom <= canvas["y"] + canvas["height"]
        assert min(page.eval_on_selector_all("#picture text", SIZES)) >= SMALLEST - 0.05
    finally:
        context.close()


def test_many_heads_stand_in_rows(show: Any) -> None:
    """A layer of many heads is no wider than the window, and no box lies over another."""
    payload = quote_payload()
    nodes = [n for n in payload["nodes"] if n["site"] == "attn.v"][:1]
    names = [f"0.attn.{letter}.{16 * head + 1}" for head in range(14) for letter in "qkv"]
    payload["nodes"] += [
        {**nodes[0], "name": name, "site": name[2:8], "index": int(name[9:]), "head": int(name[9:]) // 16}
        for name in names
        if name not in {n["name"] for n in payload["nodes"]}
    ]
    page = show(payload)
    at_rest(page)
    boxes = page.eval_on_selector_all(
        "#picture .frame", "all => all.map(e => e.getBoundingClientRect()).map(b => [b.x, b.y, b.right, b.bottom])"
    )
    assert len(boxes) >= 14
    canvas = page.locator("#canvas").bounding_box()
    assert max(box[2] for box in boxes) <= canvas["x"] + canvas["width"]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_fit_is_what_a_link_shows(show: Any) -> None:
    page = show(random_payload(100, 2))
    page.click("#zoom-in")
    true_on(page, "location.hash.includes('zoom')")
    before = page.evaluate("location.hash")
    page.click("#zoom-fit")
    eventually(lambda: page.evaluate("location.hash") != before, True)
    at_rest(page)
    width = "document.querySelector('#picture').getBoundingClientRect().width"
    fitted = page.evaluate(width)
    page.reload()
    page.wait_for_selector("#picture .vertex")
    eventually(lambda: page.evaluate(width), pytest.approx(fitted, rel=0.01))


def test_the_header_is_one_row_and_the_zoom_buttons_are_free(visit: Callable[..., Any]) -> None:
    page = visit()
    tops = page.eval_on_selector_all(".actions > *", "all => all.filter(e => e.offsetHeight).map(e => e.offsetTop)")
    assert max(tops) - min(tops) < 6
    assert page.locator("#circuits").is_visible()  # with two circuits and more
    tools = page.locator(".tools").first.bounding_box()
    for place in page.eval_on_selector_all("#picture .vertex", "all => all.map(e => e.getBoundingClientRect().right)"):
        assert place <= tools["x"]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_a_comparison_is_not_turned_sideways(browser: Any, size: tuple[int, int]) -> None:
    """25 nodes beside 18: each picture is as wide as its half of the window, with words that can be read."""
    folder = folder_of("pretrained:nano") / "circuits"
    server = serve([folder / name / "circuit.json" for name in ("indent_for", "single_double_quote")])
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    try:
        page.goto(server.url)
        page.wait_for_selector(".vertex.token", timeout=60_000)
        page.select_option("#compare", index=1)
        page.wait_for_selector("#other-picture .vertex.token", timeout=60_000)
        page.wait_for_load_state("networkidle", timeout=60_000)
        at_rest(page)
        for box, picture in (("#canvas", "#picture"), ("#other-canvas", "#other-picture")):
            canvas = page.locator(box).bounding_box()
            places = [e.bounding_box() for e in page.locator(f"{picture} .vertex").all()]
            assert min(p["x"] for p in places) >= canvas["x"]
            assert max(p["x"] + p["width"] for p in places) <= canvas["x"] + canvas["width"]
            assert min(page.eval_on_selector_all(f"{picture} text", SIZES)) >= SMALLEST - 0.05
    finally:
        page.close()
        server.close()
