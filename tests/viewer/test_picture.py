"""The circuit picture, opened in a real browser from a file, offline."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_payload import quote_payload, random_payload

from sparsecircuits.errors import UserError
from sparsecircuits.viewer.picture import render_html

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u2028\u2029<!--%%script%%"
# ------------------------------------------------------------------ without a browser


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_payload_survives_the_page() -> None:
    payload = quote_payload()
    payload["title"] = HOSTILE
    page = render_html(payload)
    assert embedded(page) == payload
    assert page.count("</script>") == 2
    assert "\u2028" not in page
    assert "\u2029" not in page


def test_page_names_no_outside_address() -> None:
    page = render_html(quote_payload())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1]
    # Names of XML languages, which nothing fetches.
    assert all(url.startswith("http://www.w3.org/") for url in re.findall(r"https?://[^\s\"'`]+", page))


def test_missing_numbers_become_null() -> None:
    payload = quote_payload()
    payload["summary"]["loss_ablated"] = math.nan
    payload["nodes"][0]["importance"] = math.inf
    data = embedded(render_html(payload))
    assert data["summary"]["loss_ablated"] is None
    assert data["nodes"][0]["importance"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema": 2}, "schema 1"), ({"edges": ...}, "edges"), ({"task": object()}, "plain JSON")],
)
def test_bad_payload_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    payload = {k: v for k, v in (quote_payload() | change).items() if v is not ...}
    with pytest.raises(UserError, match=message):
        render_html(payload)


# ------------------------------------------------------------------ in a browser


Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a payload's page; afterwards nothing may have been requested, and nothing have gone wrong."""
    contexts, requests, troubles = [], [], []

    def open_page(payload: dict[str, Any], **options: Any) -> Any:
        path = tmp_path / "picture.html"
        path.write_text(render_html(payload), encoding="utf-8")
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles
    assert all(url == (tmp_path / "picture.html").as_uri() or url.startswith("blob:") for url in requests)


def names(page: Any, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "list => list.map((e) => e.dataset.name)")


def node(name: str) -> str:
    return f'.vertex[data-name="{name}"]'


@pytest.mark.browser
@pytest.mark.parametrize(
    "payload",
    [quote_payload(), random_payload(30), random_payload(120, 4), random_payload(120, 2, seed=3)],
    ids=["quote", "30", "120 deep", "120 wide"],
)
def test_everything_is_drawn(show: Open, payload: dict[str, Any]) -> None:
    page = show(payload)
    assert sorted(names(page, ".vertex.node")) == sorted(n["name"] for n in payload["nodes"])
    drawn = names(page, '.link[data-kind="edge"]')
    assert sorted(drawn) == sorted(f"{e['source']} → {e['target']}" for e in payload["edges"])
    assert len(names(page, '.link[data-kind="residual"]')) == len(payload["residual"])
    assert len(names(page, '.link[data-kind="logit"]')) == len(payload["logits"])
    assert page.locator(".vertex.answer").count() == 2


@pytest.mark.browser
@pytest.mark.parametrize("payload", [quote_payload(), random_payload(120, 2, seed=3)], ids=["quote", "120"])
def test_lines_go_up_and_boxes_do_not_overlap(show: Open, payload: dict[str, Any]) -> None:
    page = show(payload)
    boxes = page.eval_on_selector_all(
        ".vertex .shape",
        "list => list.map((e) => e.getBoundingClientRect()).map((b) => [b.left, b.top, b.right, b.bottom])",
    )
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, (boxes[i], other)
    stage = page.locator("#picture").bounding_box()
    assert all(stage["x"] <= box[0] and box[2] <= stage["x"] + stage["width"] for box in boxes)
    assert all(stage["y"] <= box[1] and box[3] <= stage["y"] + stage["height"] for box in boxes)
    for name in names(page, ".link"):
        source, target = name.split(" → ")
        heights = [page.locator(f'.vertex[data-id="{end}"]').first.bounding_box() for end in (source, target)]
        assert heights[0]["y"] > heights[1]["y"], name


@pytest.mark.browser
def test_hover_and_pin_show_the_numbers(show: Open) -> None:
    payload = quote_payload()
    page = show(payload)
    data = next(n for n in payload["nodes"] if n["name"] == "0.mlp.post_act.863")
    page.hover(node(data["name"]))
    panel = page.locator("#panel")
    text = panel.inner_text()
    assert data["name"] in text
    assert "MLP neuron 863, layer 0" in text
    assert f"{data['mean']:+.3f}".replace("-", "−") in text
    assert "+0.520" in text
    assert "+1.840" in text  # from 0.mlp.act_in.87
    assert "−0.420" in text  # from 0.mlp.act_in.203
    assert page.locator(node("0.mlp.act_in.87")).evaluate("e => e.classList.contains('lit')")
    assert not page.locator(node("final_resid.9")).evaluate("e => e.classList.contains('lit')")
    page.mouse.move(30, 300)
    assert data["name"] not in panel.inner_text()
    page.click(node(data["name"]))
    page.mouse.move(30, 300)
    assert "Esc lets go" in panel.inner_text()
    page.click('.edge-row[data-to="0.mlp.resid_delta.31"]')
    assert "MLP write 31" in panel.inner_text()
    page.keyboard.press("Escape")
    assert "Esc lets go" not in panel.inner_text()


@pytest.mark.browser
def test_keyboard_reaches_every_node(show: Open) -> None:
    page = show(quote_payload())
    stops = page.locator('#picture [tabindex="0"]')
    assert stops.count() == 1
    stops.focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.name").startswith("0.mlp.act_in")
    assert "MLP read" in page.locator("#panel").inner_text()
    page.keyboard.press("Enter")
    assert "Esc lets go" in page.locator("#panel").inner_text()
    bare = page.eval_on_selector_all(
        ".vertex, .head-box",
        "list => list.filter((e) => !(e.ariaLabel && e.role === 'button')).length",
    )
    assert bare == 0
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.id").startswith("answer:")


def values(page: Any) -> list[list[float]]:
    return page.eval_on_selector_all(
        ".prompt",
        "list => list.map((p) => [...p.querySelectorAll('.token')].map((t) => Number(t.dataset.value)))",
    )


@pytest.mark.browser
def test_stepping_pairs_changes_the_heatmap(show: Open) -> None:
    payload = quote_payload()
    page = show(payload)
    page.click(node("1.attn.v.61"))
    rows = next(n for n in payload["nodes"] if n["name"] == "1.attn.v.61")["activations"]
    assert values(page) == rows[:2]
    assert page.locator("#prompts .token.last").count() == 2
    page.click('[aria-label="Next pair"]')
    assert values(page) == rows[2:4]
    assert "pair 2 of 3" in page.locator("#prompts").inner_text()
    assert "····" in page.locator("#prompts").inner_text()  # an indent made visible
    page.keyboard.press("p")
    page.keyboard.press("p")
    assert values(page) == rows[4:6]
    page.hover("#prompts .token.last >> nth=0")
    assert f"{rows[4][-1]:+.3f}".replace("-", "−") in page.locator("#tip").inner_text()
    margin = payload["prompts"][4]["full"][1] - payload["prompts"][4]["full"][0]
    assert f"{margin:+.3f}" in page.locator(".margin-value").first.inner_text()


MIDDLE = """(path) => {
  const { x, y } = path.getPointAtLength(path.getTotalLength() * 0.85).matrixTransform(path.getScreenCTM());
  return { x, y };
}"""


@pytest.mark.browser
def test_edge_and_head(show: Open) -> None:
    payload = quote_payload()
    page = show(payload)
    point = page.locator('.link[data-name="1.attn.v.61 → 1.attn.resid_delta.9"] .hit').evaluate(MIDDLE)
    page.mouse.move(point["x"], point["y"])
    tip = page.locator("#tip").inner_text()
    assert "1.attn.v.61 → 1.attn.resid_delta.9" in tip
    assert "−1.660" in tip
    page.click(".head-label")
    assert "Attention head 3, layer 1" in page.locator("#panel").inner_text()
    assert page.locator(".pattern-map").count() == 2
    assert values(page)[0] == pytest.approx(payload["attention"][0]["patterns"][0][-1])


@pytest.mark.browser
def test_pan_zoom_fit(show: Open) -> None:
    page = show(quote_payload())

    def place() -> dict[str, float]:
        return page.locator(node("final_resid.9")).bounding_box()

    page.keyboard.press("0")
    first = place()
    page.keyboard.press("+")
    assert place()["width"] > first["width"] * 1.2
    page.mouse.move(40, 300)
    page.mouse.wheel(0, 400)
    page.mouse.down()
    before = place()
    page.mouse.move(90, 330, steps=4)
    page.mouse.up()
    assert place()["x"] == pytest.approx(before["x"] + 50, abs=1)
    page.keyboard.press("0")
    assert place() == pytest.approx(first, abs=0.6)


@pytest.mark.browser
def test_hostile_text_is_inert(show: Open) -> None:
    payload = quote_payload()
    old = "0.mlp.post_act.863"
    text = json.dumps(payload).replace(json.dumps(old), json.dumps(HOSTILE))
    payload = json.loads(text)
    for key in ("title", "task", "description"):
        payload[key] = HOSTILE
    payload["model"]["name"] = HOSTILE
    payload["answers"][0]["text"] = HOSTILE
    payload["prompts"][0]["tokens"][1] = HOSTILE
    for entry in payload["embedding"]:
        entry["token"] = HOSTILE
    page = show(payload)
    page.locator(".vertex[data-id^='</script>']").hover()
    page.click(".vertex[data-id^='</script>']")
    assert HOSTILE.split("\u2028")[0] in page.locator("#panel").inner_text()
    page.click(".vertex.token >> nth=0")
    with page.expect_download() as download:
        page.click("#export summary")
        page.click("#download")
    ElementTree.fromstring(Path(download.value.path()).read_bytes())
    assert page.locator("img").count() == 0
    assert page.title() != "owned"


@pytest.mark.browser
def test_dark_mode(show: Open) -> None:
    page = show(quote_payload(), color_scheme="light")

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.click("#theme")
    dark = ground()
    assert dark != light
    assert page.locator("#theme").get_attribute("aria-label") == "Light mode"
    page.click("#theme")
    assert ground() == light
    assert ground() != dark
    page.emulate_media(color_scheme="dark")
    other = show(quote_payload(), color_scheme="dark")
    assert other.evaluate("getComputedStyle(document.body).backgroundColor") == dark


CONTRAST = """() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const root = getComputedStyle(document.documentElement);
  const probe = document.body.appendChild(document.createElement('i'));
  const color = (name) => { probe.style.color = `var(${name})`; return rgb(getComputedStyle(probe).color); };
  const low = [];
  for (const front of ['--ink', '--muted', '--pos', '--neg'])
    for (const back of ['--page', '--surface', '--block', '--frame']) {
      const [a, b] = [light(color(front)), light(color(back))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) low.push([front, back, ratio]);
    }
  for (const heat of ['--heat-pos', '--heat-neg']) {
    const [a, b] = [light(color('--ink')), light(color(heat))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(['--ink', heat, (a + 0.05) / (b + 0.05)]);
  }
  return low;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(show: Open, scheme: str) -> None:
    assert show(quote_payload(), color_scheme=scheme).evaluate(CONTRAST) == []


@pytest.mark.browser
def test_empty_circuit(show: Open) -> None:
    payload = quote_payload() | {"nodes": [], "edges": [], "residual": [], "embedding": [], "logits": []}
    payload["summary"] |= {"n_nodes": 0, "n_edges": 0, "loss": None}
    page = show(payload)
    assert "This circuit is empty" in page.locator("#note").inner_text()
    assert page.locator("#download").is_disabled()
    assert "pair 1 of 3" in page.locator("#prompts").inner_text()
    page.keyboard.press("+")


@pytest.mark.browser
def test_bare_payload(show: Open) -> None:
    """Only the required parts: no prompts, model or summary; the numbers are dashes."""
    payload = {k: v for k, v in quote_payload().items() if k in ("schema", "title", "answers", "nodes", "edges")}
    payload["nodes"] = [{**n, "activations": [], "importance": None} for n in payload["nodes"]]
    page = show(payload)
    assert "No prompts were saved" in page.locator("#prompts").inner_text()
    page.click(node("1.attn.k.58"))
    assert "not measured" in page.locator("#panel").inner_text()
    page.keyboard.press("n")
    page.click(".head-label")
    assert "not measured" in page.locator("#stats").inner_text()


@pytest.mark.browser
def test_svg_stands_alone(show: Open) -> None:
    payload = quote_payload()
    page = show(payload)
    with page.expect_download() as download:
        page.click("#export summary")
        page.click("#download")
    assert download.value.suggested_filename == "single_double_quote.plain.svg"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    drawn = {e.get("data-name") for e in root.iter() if e.get("data-name")}
    assert {n["name"] for n in payload["nodes"]} <= drawn
    assert {f"{e['source']} → {e['target']}" for e in payload["edges"]} <= drawn
    assert "var(" not in text
    assert "class=" not in text
    assert payload["description"] in "".join(root.itertext())
