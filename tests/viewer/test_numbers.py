"""Numbers on the page: each says where it comes from, and equal names are equal numbers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuit_ids import ids_of
from test_page import NEURON, logits, select, settled
from test_server import ask

import sparsecircuits as sc
from sparsecircuits.circuits.run_with import answer_logits, run_with
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.payload import shown_pairs
from sparsecircuits.viewer.server import ViewerServer

pytestmark = pytest.mark.browser
PROMPT = 'print("hello world'


def type_prompt(page: Any) -> None:
    page.keyboard.press("t")
    page.fill("textarea[name=prompt]", PROMPT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".own-prompt >> text=hello")


def preferred(page: Any, name: str) -> float:
    """How far the second answer is ahead of the first, as the page says it."""
    words = page.inner_text(f".preference.{name} .prefers")
    answer, by = re.fullmatch(r"prefers (\S+) by ([\d.]+)", words).groups()
    return float(by) * {'")': 1, "')": -1}[answer]


def alone(run_dir: Path, prompt: str, scope: str) -> float:
    """The same from Python."""
    model = sc.load_model(run_dir)
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    batch = shown_pairs(sc.get_task(circuit.task, model.tokenizer)).rows(0, 1)
    ids = model.tokenizer.encode(prompt)
    batch = type(batch)(np.array([ids]), np.array([len(ids) - 1]), np.array([0]), batch.answers)
    found = answer_logits(circuit, run_with(model, circuit, batch, scope=scope), batch.answers, scope)[0]
    return float(found[1] - found[0])


def test_a_typed_prompt_is_not_judged(visit: Callable[..., Any], run_dir: Path) -> None:
    """Nobody knows the right answer: which one is preferred, by how much, circuit beside model."""
    page = visit()
    type_prompt(page)
    text = page.inner_text("#prompts")
    assert not set("✓✗") & set(text)
    assert "wrong" not in text
    assert "→" not in text  # nothing is changed
    assert page.locator("#loss-line").count() == 0
    for name, scope in (("full", "model"), ("circuit", "circuit")):
        assert preferred(page, name) == pytest.approx(alone(run_dir, PROMPT, scope), abs=6e-4)
    page.keyboard.press("Escape")
    page.locator("#panel").click()
    select(page, NEURON)
    page.keyboard.press("2")
    settled(page)
    assert page.locator(".preference.after .margin-label").inner_text() == "circuit alone, after"
    assert preferred(page, "after") < preferred(page, "circuit")


def test_the_circuit_is_the_subject_and_every_loss_says_of_what(visit: Callable[..., Any], run_dir: Path) -> None:
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    page = visit()
    assert page.locator('[data-act="circuit"]').get_attribute("aria-checked") == "true"
    select(page, NEURON)
    rise = page.locator(".fact", has=page.locator("#importance-of")).inner_text()
    assert "circuit alone" in rise
    assert "96 validation prompts" in rise  # twice the pairs that pruning measured on
    assert f"+{next(n.importance for n in circuit.nodes if n.name == NEURON):.3f}" in rise
    page.keyboard.press("2")
    settled(page)
    assert re.fullmatch(r"loss, circuit alone: [\d.e-]+ → [\d.e-]+ 48 held-out prompts", page.inner_text("#loss-line"))
    page.keyboard.press("s")
    page.wait_for_selector("#loss-line >> text=whole model")
    assert "512 held-out prompts" in page.inner_text("#stats-on")
    about = page.locator(f'#picture .vertex[data-name="{NEURON}"]').get_attribute("aria-label")
    assert "loss of the circuit alone" in about


def test_header_card_and_comparison_have_the_same_losses(visit: Callable[..., Any], run_dir: Path) -> None:
    page = visit()
    stats = page.locator("#stats .stat").all_inner_texts()
    header = dict(text.split("\n")[:2] for text in stats)
    page.select_option("#compare", index=1)
    page.wait_for_selector("#overlap", timeout=60_000)
    rows = [row.split("\t") for row in page.locator("#panel .table tr").all_inner_texts()]
    left = {row[0]: row[1] for row in rows}
    names = ["loss, circuit alone", "loss, whole model", "loss, circuit removed"]
    assert [left[name] for name in names] == [header[name] for name in names]


def test_resample_is_not_patch(visit: Callable[..., Any], viewer: ViewerServer) -> None:
    """On a pair alone the other prompt would be the only one to draw from."""
    page = visit()
    select(page, NEURON)
    found = {}
    for key in ("4", "3"):
        page.keyboard.press(key)
        page.wait_for_selector(
            f'#panel .touch-button[data-kind="{"patch" if key == "4" else "resample"}"][aria-pressed="true"]'
        )
        settled(page)
        found[key] = [logits(page, row) for row in (0, 1)]
    assert found["3"] != found["4"]
    path = f"/api/circuits/{ids_of(viewer)[0]}/run"
    seen = set()
    for seed in range(4):
        change = {"kind": "resample", "target": NEURON}
        result = json.loads(ask(viewer, path, {"scope": "circuit", "interventions": [change], "seed": seed})[1])
        seen.add(tuple(result["prompts"][0]["after"]["logits"]))
    assert len(seen) > 1  # donors differ from draw to draw


def test_the_slider_is_dragged_and_says_what_the_curve_says(visit: Callable[..., Any]) -> None:
    page = visit()
    width = page.locator("#size").bounding_box()["width"]
    page.hover("#size")
    page.wait_for_selector(".loss-curve", timeout=60_000)
    page.wait_for_selector(".size-loss >> text=loss, circuit alone")
    box = page.locator("#size").bounding_box()
    assert box["width"] == width >= 200
    target = page.locator("#sizes .target").bounding_box()
    assert "target 0.150" in page.locator("#sizes").text_content()
    assert target["width"] > 200
    total = page.locator("#picture .vertex.node").count()
    x, y = box["x"] + box["width"] - 8, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 120, y, steps=8)
    page.mouse.up()
    page.wait_for_selector("#sizes output >> text=of")
    size = int(page.inner_text("#sizes output").split()[0])
    assert size == pytest.approx(total - total * 120 / (width - 16), abs=1)
    settled(page)
    line = page.locator("#loss-line")
    said = float(re.search(r"[\d.e-]+$", page.inner_text(".size-loss"))[0])
    assert float(line.get_attribute("data-after")) == pytest.approx(said, abs=6e-4)
    page.focus("#size")
    page.keyboard.press("End")
    page.wait_for_selector(f"text={total} of {total} nodes")
    whole = float(re.search(r"[\d.e-]+$", page.inner_text(".size-loss"))[0])
    assert float(line.get_attribute("data-before") if line.count() else whole) == pytest.approx(whole, abs=6e-4)


def test_before_is_the_whole_circuit(viewer: ViewerServer) -> None:
    path = f"/api/circuits/{ids_of(viewer)[0]}"
    curve = json.loads(ask(viewer, f"{path}/curve")[1])
    small = json.loads(ask(viewer, f"{path}/run", {"scope": "circuit", "size": 2})[1])
    whole = json.loads(ask(viewer, f"{path}/run", {"scope": "circuit"})[1])
    losses = [json.loads(ask(viewer, f"{path}/loss", {"scope": "circuit", **at})[1]) for at in ({"size": 2}, {})]
    assert losses[0]["before"] == losses[1]["after"] == curve["points"][-1]["loss"]
    assert losses[0]["after"] == curve["points"][2]["loss"]
    assert small["prompts"][0]["before"] == whole["prompts"][0]["before"] != small["prompts"][0]["after"]
    assert (curve["n_prompts"], curve["split"]) == (losses[0]["n_prompts"], losses[0]["split"])
