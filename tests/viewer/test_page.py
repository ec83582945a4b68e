"""The page of the running viewer in a real browser: every row of what a circuit viewer must offer."""

import json
import random
import re
import struct
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sample_payload import INTO, random_payload
from waiting import at_rest, eventually, true_on

import sparsecircuits as sc
from axe import serious_faults
from sparsecircuits.circuits.run_with import answer_logits, run_with
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.runs import groups_path
from sparsecircuits.viewer.payload import shown_pairs
from sparsecircuits.viewer.server import ViewerServer

pytestmark = pytest.mark.browser
NEURON, WRITE, VALUE = "0.mlp.post_act.5", "0.mlp.resid_delta.4", "0.attn.v.0"


def node(name: str) -> str:
    return f'#picture .vertex[data-name="{name}"]'


def select(page: Any, name: str) -> None:
    page.click(node(name))
    page.wait_for_selector("#panel.pinned")


def logits(page: Any, row: int = 0, which: str = "after") -> list[float]:
    found = page.locator(f".prompt[data-prompt='{row}'] .margin.{which}").get_attribute("data-logits")
    return [float(part) for part in found.split(",")]


def settled(page: Any) -> None:
    """Wait for the answer of the last run."""
    page.wait_for_selector("#loss-line")


def api_logits(run_dir: Path, changes: list[dict[str, Any]], scope: str = "circuit") -> Any:
    model = sc.load_model(run_dir)
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    batch = shown_pairs(sc.get_task(circuit.task, model.tokenizer)).rows(0, 2)
    outcome = run_with(model, circuit, batch, [sc.Intervention(**change) for change in changes], scope=scope)
    return answer_logits(circuit, outcome, batch.answers, scope)


# ------------------------------------------------------------------ see


def test_one_layered_picture_with_pan_zoom_fit(visit: Callable[..., Any]) -> None:
    page = visit()
    rows = [
        page.locator(f'.vertex[data-id="{name}"]').bounding_box()["y"]
        for name in ("answer:0", "final_resid.4", WRITE, NEURON, "0.mlp.act_in.3", VALUE, "0.attn.act_in.0")
    ]
    assert rows == sorted(rows)
    assert page.locator(".vertex.token").first.bounding_box()["y"] > rows[-1]
    page.keyboard.press("0")
    before = page.locator(node(NEURON)).bounding_box()
    page.keyboard.press("+")
    assert page.locator(node(NEURON)).bounding_box()["width"] > before["width"] * 1.15
    page.keyboard.press("0")
    assert page.locator(node(NEURON)).bounding_box()["width"] == pytest.approx(before["width"], rel=0.02)


def test_a_picture_moved_by_hand_stays_when_its_frame_changes(visit: Callable[..., Any]) -> None:
    """The picture drawn before the prompts came must not go on fitting itself."""
    page = visit()
    page.keyboard.press("+")
    moved = page.locator(node(NEURON)).bounding_box()["width"]
    page.set_viewport_size({"width": 1100, "height": 640})
    true_on(page, "innerWidth === 1100")
    at_rest(page)
    assert page.locator(node(NEURON)).bounding_box()["width"] == pytest.approx(moved, rel=0.02)


def test_hover_shows_neighbours_and_click_selects(visit: Callable[..., Any]) -> None:
    page = visit()
    page.hover(node(NEURON))
    assert page.locator(node(WRITE)).evaluate("e => e.classList.contains('lit')")
    assert not page.locator(node("0.attn.act_in.0")).evaluate("e => e.classList.contains('lit')")
    assert page.locator(f'.link[data-name="{NEURON} → {WRITE}"]').get_attribute("class").split()[2] == "pos"
    select(page, NEURON)
    assert "MLP neuron 5, layer 0" in page.locator("#panel").inner_text()


def test_node_panel_has_every_weight_both_sides_and_text(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    page.wait_for_selector("#panel .text, #panel .weights", timeout=60_000)
    page.click('#panel .weights[data-title="Comes from"] summary')
    rows = page.locator('#panel .weights[data-title="Comes from"] .edge-row')
    assert "0.mlp.act_in.3" in rows.first.inner_text()
    assert "in the circuit" in rows.first.inner_text()
    sides = [page.locator(f".side-row.{side} .token") for side in ("left", "right", "difference")]
    left, right, difference = (
        [float(v) for v in side.evaluate_all("list => list.map((e) => e.dataset.value)")] for side in sides
    )
    shift = len(left) - len(right)
    assert difference == pytest.approx([b - left[i + shift] for i, b in enumerate(right)], abs=1e-6)
    assert max(map(abs, difference)) > 0
    page.goto(page.url.split("#")[0] + "#at=0.attn.v.5")  # a node outside the circuit
    page.reload()
    page.wait_for_selector("#panel .histogram", timeout=60_000)
    assert "Not in the circuit" in page.locator("#panel").inner_text()
    assert page.locator("#panel .band").count() >= 2
    assert page.locator("#panel .band .token.last").count() >= 2


def test_node_panel_shows_the_words_of_the_card(visit: Callable[..., Any], run_dir: Path) -> None:
    card = json.loads(circuit_files(run_dir)[0].with_name("report.json").read_text())
    words = {entry["name"]: entry["words"] for entry in card["descriptions"]}
    page = visit()
    for name in (NEURON, VALUE):
        select(page, name)
        assert words[name] in page.locator("#panel .card-words").inner_text()


def test_attention_with_kept_channels_and_with_all(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click(".head-label")
    assert "Attention head 0, layer 0" in page.locator("#panel").inner_text()
    assert page.locator("#panel .patterns.kept canvas").count() == 2
    assert page.locator("#panel .patterns.full canvas").count() == 2
    heat = page.eval_on_selector_all("#prompts .prompt:first-of-type .token", "l => l.map((e) => +e.dataset.value)")
    assert sum(heat[: len(heat)]) > 0


# ------------------------------------------------------------------ touch


@pytest.mark.parametrize(("key", "kind"), [("1", "mean"), ("2", "zero"), ("4", "patch")])
def test_a_node_is_changed_as_the_api_changes_it(visit: Callable[..., Any], run_dir: Path, key: str, kind: str) -> None:
    page = visit()
    select(page, NEURON)
    page.keyboard.press(key)
    settled(page)
    wanted = api_logits(run_dir, [{"kind": kind, "target": NEURON}])
    for row in (0, 1):
        assert logits(page, row) == pytest.approx(wanted[row].tolist(), abs=1e-4)
        assert logits(page, row, "before") == pytest.approx(api_logits(run_dir, [])[row].tolist(), abs=1e-4)
    before, after = (float(page.locator("#loss-line").get_attribute(f"data-{w}")) for w in ("before", "after"))
    assert after > before
    assert page.locator(node(NEURON)).get_attribute("data-touch")


def test_an_edge_a_head_and_the_circuit_alone(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit(f"#at=edge:{NEURON} → {WRITE}")
    page.click('#panel .touch-button[data-kind="zero"]')
    settled(page)
    edge = {"kind": "zero", "source": NEURON, "target": WRITE}
    assert logits(page) == pytest.approx(api_logits(run_dir, [edge])[0].tolist(), abs=1e-4)
    page.click('#strip [data-act="model"]')
    page.wait_for_selector("#loss-line >> text=whole model")
    wanted = api_logits(run_dir, [edge], "model")[0].tolist()
    assert logits(page) == pytest.approx(wanted, abs=1e-4)
    page.click(".head-label")
    page.click('#panel .touch-button[data-kind="mean"]')
    page.wait_for_selector(".change >> nth=1")
    assert page.locator(".change").count() == 2


def test_scale_undo_redo_reset_and_history(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    select(page, NEURON)
    page.keyboard.press("2")
    settled(page)
    zero = logits(page)
    page.keyboard.press("]")
    page.wait_for_selector('.vertex[data-touch="×1.5"]')
    settled(page)
    scaled = api_logits(run_dir, [{"kind": "scale", "target": NEURON, "factor": 1.5}])[0].tolist()
    assert logits(page) == pytest.approx(scaled, abs=1e-4)
    page.keyboard.press("Control+z")
    settled(page)
    assert logits(page) == pytest.approx(zero, abs=1e-5)
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector('.vertex[data-touch="×1.5"]')
    page.keyboard.press("r")
    assert page.locator(".change").count() == 0
    assert page.locator("#loss-line").count() == 0
    page.keyboard.press("h")
    steps = page.locator(".history li")
    assert steps.count() == 4
    steps.nth(1).locator("button").click()
    page.wait_for_selector('.vertex[data-touch="0"]')
    settled(page)
    assert logits(page) == pytest.approx(zero, abs=1e-5)


def test_a_prompt_of_ones_own(visit: Callable[..., Any]) -> None:
    page = visit()
    page.keyboard.press("t")
    page.fill("textarea[name=prompt]", 'print("hello world')
    page.fill("textarea[name=patch]", "print('hello world")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".next")
    page.wait_for_selector("text=next token")
    first = logits(page, 0, "circuit")
    assert first[1] > first[0]
    page.keyboard.press("Escape")
    page.locator("#panel").click()
    select(page, NEURON)
    page.keyboard.press("4")
    page.wait_for_selector(".change")
    settled(page)
    assert logits(page)[1] < first[1] - 1
    page.fill("textarea[name=prompt]", "x = 1\n" * 300)
    page.click("form.own button[type=submit]")
    page.wait_for_selector("#prompts .trouble")
    assert "shorten it" in page.locator("#prompts .trouble").inner_text()


def test_an_answer_to_an_older_prompt_is_never_shown_under_a_newer_one(visit: Callable[..., Any]) -> None:
    page = visit()
    held: list[Any] = []
    page.route("**/run", lambda route: held.append(route))
    with page.expect_request("**/run"):
        page.keyboard.press("t")
    page.fill("textarea[name=prompt]", 'print("hello world')
    page.keyboard.press("Control+Enter")
    true_on(page, "location.hash.includes('hello')")
    with page.expect_request("**/run"):  # what is newest is asked about as soon as the older answer is there
        held[0].continue_()
    page.wait_for_timeout(300)
    assert page.locator(".next").count() == 0
    held[1].continue_()
    page.wait_for_selector(".next")
    tokens = page.locator(".prompt .token").all_text_contents()
    assert "hello" in "".join(tokens), tokens


def test_details_of_the_circuit_before_are_not_shown(visit: Callable[..., Any]) -> None:
    page = visit()
    held: list[Any] = []
    page.route("**/nodes/*", lambda route: held.append(route))
    with page.expect_request("**/nodes/*"):
        select(page, NEURON)
    page.select_option("#circuits", index=1)
    page.wait_for_selector("#panel.pinned", state="detached")
    page.wait_for_selector(".vertex.token", timeout=60_000)
    with page.expect_request("**/nodes/*"):
        select(page, NEURON)
    with page.expect_response("**/nodes/*"):
        held[0].continue_()
    at_rest(page)
    assert page.locator("#panel .weights").count() == 0
    held[1].continue_()
    page.wait_for_selector("#panel .weights")


def test_names_are_saved_in_the_order_they_were_given(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    held: list[Any] = []
    page.route("**/groups", lambda route: held.append(route))
    select(page, NEURON)
    for name in ("first", "second"):
        page.fill('[aria-label="Name of this node"]', name)
        page.keyboard.press("Tab")
        page.wait_for_selector(f"{node(NEURON)} >> text={name}")
    at_rest(page)
    assert len(held) == 1  # the next one goes when this one is there
    held[0].continue_()
    eventually(lambda: page.evaluate("1") and len(held), 2)
    held[1].continue_()
    sidecar = groups_path(circuit_files(run_dir)[0])
    eventually(lambda: page.evaluate("1") and sidecar.exists() and '"second"' in sidecar.read_text(), True)


def test_size_slider_follows_the_curve(visit: Callable[..., Any], viewer: ViewerServer) -> None:
    page = visit()
    page.focus("#size")
    page.wait_for_selector(".loss-curve", timeout=60_000)
    total = page.locator("#picture .vertex.node").count()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert f"{total - 2} of {total} nodes" in page.locator("#sizes").inner_text()
    assert page.locator("#picture .vertex.node.outside").count() == 2
    assert re.search(r"loss, circuit alone: [\d.]+", page.locator(".size-loss").inner_text())
    settled(page)
    assert f"size={total - 2}" in page.url


# ------------------------------------------------------------------ compare, find, group


def test_compare_two_circuits(visit: Callable[..., Any], run_dir: Path) -> None:
    first, second = (sc.Circuit.load(path) for path in circuit_files(run_dir)[:2])
    page = visit()
    page.select_option("#compare", index=1)
    page.wait_for_selector("#other-picture .vertex", timeout=60_000)
    page.wait_for_selector("#overlap")
    shared = set(first.node_names) & set(second.node_names)
    assert f"{len(shared)} shared nodes" in page.locator("#overlap").inner_text()
    assert page.locator("#picture .vertex.shared").count() == len(shared)
    assert page.locator("#picture .vertex.own").count() == len(first.nodes) - len(shared) > 0
    page.hover(f'#picture .vertex[data-name="{second.nodes[0].name}"]')
    page.click(f'#picture .vertex[data-name="{second.nodes[0].name}"]')
    assert page.locator(f'#other-picture .vertex.chosen[data-name="{second.nodes[0].name}"]').count() == 1
    page.click("#end-compare")
    assert page.locator("#other-picture").count() == 0
    page = visit()
    page.select_option("#compare", index=2)
    page.wait_for_selector("text=different models")


def test_find_filter_group_fold_and_hide(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    total = page.locator("#picture .vertex.node").count()
    page.keyboard.press("/")
    page.keyboard.type("0.mlp.*")
    found = page.locator("#find-results .edge-row")
    inside = found.count()
    assert inside == page.locator("#picture .vertex.found").count() >= 3
    page.fill("input[name=group]", "the MLP <b>")
    page.keyboard.press("Enter")
    page.wait_for_selector('.vertex.group[data-id="group:the MLP <b>"]')
    assert page.locator("#picture .vertex.node").count() == total - inside
    sidecar = circuit_files(run_dir)[0].with_name("circuit.groups.json")
    eventually(sidecar.exists, True)
    assert json.loads(sidecar.read_text())["groups"][0]["name"] == "the MLP <b>"
    page.keyboard.press("Escape")
    page.click(".vertex.group")
    page.keyboard.press("2")
    settled(page)
    assert page.locator(".change").count() == min(4, inside)
    page.keyboard.press("r")
    page.reload()
    page.wait_for_selector(".vertex.group.chosen")  # the sidecar and the URL bring it back
    page.click("text=Dissolve")
    page.wait_for_selector(node(NEURON))
    select(page, NEURON)
    page.fill('[aria-label="Name of this node"]', "detector")
    page.keyboard.press("Tab")
    page.wait_for_selector(f"{node(NEURON)} >> text=detector")
    page.keyboard.press("Escape")
    select(page, NEURON)
    page.keyboard.press("x")
    page.wait_for_selector(node(NEURON), state="detached")
    page.keyboard.press("u")
    page.wait_for_selector(node(NEURON))
    page.keyboard.press("/")
    page.focus("#importance")
    page.keyboard.press("End")
    eventually(lambda: 0 < page.locator("#picture .vertex.node").count() < total, True)
    sidecar.unlink(missing_ok=True)


def test_card_beside_the_picture(visit: Callable[..., Any], run_dir: Path) -> None:
    card = json.loads(circuit_files(run_dir)[0].with_name("report.json").read_text())
    page = visit()
    page.keyboard.press("c")
    text = page.locator("#drawer").inner_text()
    assert "Faithfulness card" in text
    assert card["verdict"] in text.lower()
    assert card["reasons"][0] in text
    shown = [float(number) for number in page.locator("#drawer .bar-row b").all_inner_texts()]
    wanted = [card["losses"]["circuit"], card["losses"]["ablated_calibrated"], card["random_ablated"]]
    assert shown == [pytest.approx(value, rel=0.03, abs=6e-4) for value in wanted]
    drawer = page.locator("#drawer")
    assert drawer.evaluate("e => e.scrollHeight <= e.clientHeight")  # one screen
    assert drawer.locator("details[open]").count() == 0
    assert drawer.locator(".warning-chip").count() == len(card["warnings"])
    page.click("#measures > summary")
    page.click("#measures .card-part summary")
    assert "sufficiency" in page.locator("#drawer").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#drawer").is_hidden()


# ------------------------------------------------------------------ share


def test_url_restores_the_view(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    page.keyboard.press("2")
    page.keyboard.press("n")
    page.keyboard.press("d")
    settled(page)
    page.keyboard.press("+")
    true_on(page, "location.hash.includes('zoom')")
    at_rest(page)
    place, url, found = page.locator(node(NEURON)).bounding_box(), page.url, logits(page)
    other = visit(url[url.index("#") :])
    other.wait_for_selector('.vertex[data-touch="0"]')
    settled(other)
    assert logits(other) == pytest.approx(found, abs=1e-5)
    assert "pair 2" in other.locator("#pair").inner_text()
    assert other.locator("#panel.pinned").count() == 1
    assert other.evaluate("document.documentElement.dataset.theme") == page.evaluate(
        "document.documentElement.dataset.theme"
    )
    again = other.locator(node(NEURON)).bounding_box()
    assert (again["x"], again["y"], again["width"]) == pytest.approx((place["x"], place["y"], place["width"]), abs=2)


def test_a_malformed_url_does_no_harm(visit: Callable[..., Any]) -> None:
    page = visit('#at=<img src=x>&touch=[["explode","a"],7]&zoom=a,b,-1&pair=-4&hidden={"a":1}&size=999&show=secret')
    assert page.locator("#picture .vertex.node").count() > 0
    assert page.locator("img").count() == 0


def save(page: Any, which: str) -> Path:
    page.click("#export summary")
    with page.expect_download() as download:
        page.click(f'[data-format="{which}"]')
    return Path(download.value.path())


def test_exports_open(visit: Callable[..., Any], browser: Any, tmp_path: Path) -> None:
    page = visit()
    names = page.eval_on_selector_all("#picture .vertex.node", "list => list.map((e) => e.dataset.name)")
    root = ElementTree.fromstring(save(page, "svg").read_bytes())
    assert set(names) <= {e.get("data-name") for e in root.iter()}
    png = save(page, "png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(struct.unpack(">II", png[16:24])) > 400
    data = json.loads(save(page, "json").read_text())
    assert [n["name"] for n in data["nodes"]] == names or {n["name"] for n in data["nodes"]} == set(names)
    offline = tmp_path / "offline.html"
    offline.write_bytes(save(page, "html").read_bytes())
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    alone, asked, troubles = context.new_page(), [], []
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("console", lambda message: troubles.append(message.text))
    alone.goto(offline.as_uri())
    alone.click(node(VALUE))
    alone.wait_for_selector("#panel .weights")
    assert alone.locator(".side-row.left .token").count() > 0
    assert alone.locator("#panel .text, #panel .foot").count() > 0
    alone.focus("#size")
    alone.wait_for_selector(".loss-curve")
    assert alone.locator("#strip").is_hidden()
    assert asked == [offline.as_uri()]
    assert troubles == []
    context.close()


# ------------------------------------------------------------------ keyboard, dark mode, states, accessibility


def test_keyboard_alone(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator('#picture [tabindex="0"]').focus()
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    name = page.evaluate("document.activeElement.dataset.id")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel.pinned")
    assert name.split(".")[-1] in page.locator("#panel-title").inner_text()
    page.keyboard.press("?")
    assert "undo, redo" in page.locator("#drawer").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    assert page.evaluate("document.body.classList.contains('wide')")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#panel.pinned").count() == 0


def test_dark_mode_and_no_overflow(visit: Callable[..., Any]) -> None:
    page = visit(color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("d")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight"
    )


def test_a_circuit_of_another_model_says_so(visit: Callable[..., Any]) -> None:
    page = visit("#circuit=2", live=False)
    page.wait_for_selector("#banner:not([hidden])", timeout=60_000)
    assert "belongs to model elsewhere" in page.locator("#banner").inner_text()
    assert page.locator("#strip").is_hidden()
    select(page, NEURON)
    page.keyboard.press("2")
    assert page.locator(".change").count() == 0


def test_axe_finds_nothing_serious(visit: Callable[..., Any]) -> None:
    page = visit()
    for prepare in (lambda: None, lambda: select(page, NEURON), lambda: page.keyboard.press("c")):
        prepare()
        true_on(page, "document.getAnimations().every(each => each.playState === 'finished')")
        assert serious_faults(page) == []


def goes_to_the_end(page: Any, panel: Any) -> bool:
    """Whether the key End shows the end of a panel that has the focus; what it shows may still grow."""
    page.keyboard.press("End")
    return bool(panel.evaluate("e => e.scrollTop + e.clientHeight >= e.scrollHeight - 1"))


def test_keys_reach_the_end_of_every_panel_that_scrolls(visit: Callable[..., Any]) -> None:
    page = visit()
    select(page, NEURON)
    for key, name in (("", "panel"), ("", "prompts"), ("c", "drawer"), ("h", "drawer"), ("?", "drawer")):
        if key:
            page.keyboard.press(key)
        panel = page.locator(f"#{name}")
        panel.evaluate("e => { e.style.maxHeight = '90px'; e.style.minHeight = 0; }")
        assert panel.get_attribute("aria-label")
        panel.focus()
        assert panel.evaluate("e => document.activeElement === e && e.scrollHeight > e.clientHeight"), name

        eventually(partial(goes_to_the_end, page, panel), True)


def test_the_card_as_a_page_on_a_narrow_screen(browser: Any, run_dir: Path) -> None:
    context = browser.new_context(offline=True, viewport={"width": 320, "height": 600})
    page = context.new_page()
    page.goto(circuit_files(run_dir)[0].with_name("report.html").as_uri())
    assert page.locator(".scroll").count() > 2
    assert serious_faults(page) == []
    context.close()


# ------------------------------------------------------------------ large circuits


def cpu_seconds(client: Any) -> float:
    """Time on the page's main thread so far: says more than a clock on a busy machine."""
    metrics = client.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def with_edges(payload: dict[str, Any], wanted: int) -> dict[str, Any]:
    """The payload with that many edges, or all that there can be, and no activations."""
    rng, places = random.Random(0), defaultdict(list)
    for entry in payload["nodes"]:
        entry["activations"] = []
        places[entry["layer"], entry["site"]].append(entry["name"])
    known = {(edge["source"], edge["target"]) for edge in payload["edges"]}
    possible = [
        (entry["name"], target)
        for entry in payload["nodes"]
        for site in INTO.get(entry["site"], ())
        for target in places[entry["layer"], site]
        if (entry["name"], target) not in known
    ]
    missing = min(max(wanted - len(known), 0), len(possible))
    for source, target in rng.sample(possible, missing):
        payload["edges"].append({"source": source, "target": target, "weight": rng.gauss(0, 1)})
    return payload


@pytest.mark.parametrize(("n_nodes", "n_layer", "limit"), [(100, 2, 2.0), (2000, 8, 5.0)])
def test_large_circuits_are_drawn_in_time(
    browser: Any, tmp_path: Path, slowness: float, n_nodes: int, n_layer: int, limit: float
) -> None:
    from sparsecircuits.viewer.picture import render_html

    payload = with_edges(random_payload(n_nodes, n_layer), 5 * n_nodes)
    path = tmp_path / "large.html"
    path.write_text(render_html(payload), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    page = context.new_page()
    client = context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    started = time.perf_counter()
    page.goto(f"{path.as_uri()}#whole=1")  # each node with a box of its own
    page.wait_for_selector("#picture .vertex", timeout=60_000)
    spent = cpu_seconds(client)
    print(
        f"{n_nodes} nodes, {len(payload['edges'])} edges: {spent:.2f} s of CPU, {time.perf_counter() - started:.2f} s"
    )
    assert page.locator("#picture .vertex.node").count() == n_nodes
    context.close()
    assert spent < limit * slowness


def test_panning_is_one_moved_layer(browser: Any, tmp_path: Path, slowness: float) -> None:
    """500 nodes: while a hand pans and zooms, nothing is laid out or drawn anew."""
    from sparsecircuits.viewer.picture import render_html

    path = tmp_path / "large.html"
    path.write_text(render_html(random_payload(500, 4)), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.goto(f"{path.as_uri()}#whole=1")
    page.wait_for_selector("#picture .vertex", timeout=60_000)
    at_rest(page)
    client = context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = cpu_seconds(client)
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 30)
    page.mouse.down()
    steps = 60
    for step in range(steps):
        page.mouse.move(box["x"] + 200 + 2 * step, box["y"] + 30 + step)
    spent = (cpu_seconds(client) - before) / steps
    page.mouse.up()
    context.close()
    print(f"{1000 * spent:.1f} ms of CPU a move")
    assert spent < slowness / 30
