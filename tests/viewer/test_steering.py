"""Steering over a bridge: curves, the server's answers, and the panel with its slider."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from circuit_ids import ids_of
from test_page import VALUE, select
from test_server import ask
from waiting import eventually

import sparsecircuits as sc
from axe import serious_faults
from sparsecircuits.bridges.steering import NodeSteering, steer
from sparsecircuits.bridges.storage import load_bridge
from sparsecircuits.cli import arguments, commands
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.live import LiveCircuit
from sparsecircuits.viewer.requests import SteerRequest
from sparsecircuits.viewer.schema import SteeringControls, SteeringCurves
from sparsecircuits.viewer.server import ViewerServer, serve
from sparsecircuits.viewer.steering import DRAWS, MEAN_PAIRS, STRENGTHS, GivenBridge

READ = "final_resid.4"


@pytest.fixture
def given(bridge_dir: Path) -> GivenBridge:
    return GivenBridge(bridge_dir)


@pytest.fixture
def live(run_dir: Path) -> LiveCircuit:
    library = Library(circuit_files(run_dir)[:1])
    return library.live(library.list()[0].id)


def test_the_curves_are_those_of_the_command(given: GivenBridge, live: LiveCircuit, bridge_dir: Path) -> None:
    bridge = load_bridge(bridge_dir)
    for toward in ("left", "right"):
        request = SteerRequest(nodes=(READ,), over="task", toward=toward)
        curves, controls = given.steer(live, request), given.controls(live, request)
        wanted = steer(
            bridge, live.task, [READ], toward=toward, strengths=STRENGTHS, n_pairs=MEAN_PAIRS, controls=DRAWS
        )
        assert {**curves.model_dump(), **controls.model_dump(), "over": None} == {**wanted, "over": None}
        # A rotation is known: the dense model does what the sparse one does, and the answer turns.
        assert curves.steered == pytest.approx(curves.sparse, abs=1e-3)
        assert curves.steered[0] < 0.01
        assert curves.steered[-1] == pytest.approx(curves.counterfactual, abs=0.02)
        assert curves.counterfactual > 0.5
        assert max(max(draw) - draw[0] for draw in controls.random_nodes) < 0.05


def test_no_node_named_means_all_reads_of_the_circuit(given: GivenBridge, live: LiveCircuit) -> None:
    reads = [name for name in live.circuit.node_names if "act_in" in name or name.startswith("final_resid")]
    assert len(reads) == 3
    assert given.steer(live, SteerRequest()).nodes == reads
    assert given.steerable(live.circuit, live.model, None).nodes == reads


def test_a_pair_is_steered_from_either_side(given: GivenBridge, live: LiveCircuit, bridge_dir: Path) -> None:
    dense = load_bridge(bridge_dir).dense
    answers = live.task.answer_ids
    for toward, row in (("right", 2), ("left", 3)):
        found = given.steer(live, SteerRequest(pair=1, toward=toward, nodes=(READ,)))
        assert found.prompts == 1
        ids = live.shown.tokens[row, : live.shown.last[row] + 1].tolist()
        other = live.shown.tokens[5 - row, : live.shown.last[5 - row] + 1].tolist()
        assert (found.prompt, found.counterpart) == (live.texts(ids), live.texts(other))
        chance = dense(torch.tensor([ids]))[0, -1].softmax(dim=-1)[answers[toward == "right"]].item()
        assert found.steered[0] == pytest.approx(chance, rel=1e-4)
    with pytest.raises(sc.UserError, match="there are 4 pairs"):
        given.steer(live, SteerRequest(pair=4))


def test_a_prompt_of_ones_own_is_steered_by_its_difference_from_another(given: GivenBridge, live: LiveCircuit) -> None:
    texts = [live.tokenizer.decode(live.shown.tokens[row, : live.shown.last[row] + 1].tolist()) for row in (0, 1)]
    shown = given.steer(live, SteerRequest(nodes=(READ,)))
    typed = given.steer(live, SteerRequest(nodes=(READ,), prompt=texts[0], patch_prompt=texts[1]))
    assert typed.split == "typed"
    assert typed.extended(split=shown.split) == shown
    # The prompt stays the one that is steered, whichever answer is read.
    back = given.steer(live, SteerRequest(nodes=(READ,), toward="left", prompt=texts[0], patch_prompt=texts[1]))
    assert (back.prompt, back.answer) == (typed.prompt, live.task.answers[0])
    assert back.steered[0] > 0.5 > 0.1 > back.steered[-1]
    for fields, words in (
        ({"prompt": texts[0]}, "give a second one"),
        ({"prompt": texts[0], "patch_prompt": "x = 1\n" * 200}, "shorten it"),
        ({"nodes": (VALUE,)}, "no read of the residual stream"),
        ({"nodes": ("0.attn.act_in.99",)}, "no channel of the residual stream"),
    ):
        with pytest.raises(sc.UserError, match=words) as refused:
            given.steer(live, SteerRequest.model_validate(fields))
        assert "\n" not in str(refused.value)


def test_each_curve_is_computed_once(given: GivenBridge, live: LiveCircuit, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("curves", "controls"):
        own = getattr(NodeSteering, name)
        monkeypatch.setattr(NodeSteering, name, lambda *a, own=own, name=name: asked.append(name) or own(*a))
    request = SteerRequest(nodes=(READ,))
    for _ in range(2):
        given.steer(live, request)
        given.controls(live, request)
    assert asked == ["curves", "controls"]
    given.steer(live, SteerRequest(nodes=(READ,), toward="left"))
    assert asked == ["curves", "controls", "curves"]


# ------------------------------------------------------------------ the server


def test_the_server_steers(bridged: ViewerServer) -> None:
    _, text, _ = ask(bridged, "/api/circuits/0")
    steering = json.loads(text)["steering"]
    assert (steering["bridge"], steering["dense"], len(steering["nodes"])) == ("bridge", "turned", 3)
    for path, model in (("steer", SteeringCurves), ("steer/controls", SteeringControls)):
        status, text, _ = ask(bridged, f"/api/circuits/0/{path}", {"nodes": [READ]})
        assert status == 200
        assert model.model_validate_json(text).to_json() == text
        assert ask(bridged, f"/api/circuits/0/{path}", {}, Origin="http://evil.example")[0] == 403
        for body, words in (
            ({"nodes": [VALUE]}, "no read of the residual stream"),
            ({"toward": "up"}, "toward"),
            ({"path": "/etc/passwd"}, "path"),
            ({"prompt": "x" * 9000}, "prompt"),
        ):
            status, text, _ = ask(bridged, f"/api/circuits/0/{path}", body)
            assert status == 422
            assert words in json.loads(text)["error"]
            assert "\n" not in json.loads(text)["error"]


def test_without_a_bridge_nothing_is_steered(viewer: ViewerServer) -> None:
    assert "steering" not in json.loads(ask(viewer, "/api/circuits/0")[1])
    status, text, _ = ask(viewer, "/api/circuits/0/steer", {})
    assert (status, json.loads(text)["error"]) == (422, "no bridge was given: start the viewer with --bridge")


def test_a_bridge_of_another_model_runs_nothing(
    run_dir: Path, bridge_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsecircuits.bridges.storage.load_bridge", lambda *_: pytest.fail("the bridge was loaded"))
    first, _, foreign = circuit_files(run_dir)
    with pytest.raises(sc.UserError, match=r"joins another sparse model \([0-9a-f]{12}…\) than the circuit's \(0{12}…"):
        serve([foreign], bridge=bridge_dir)
    server = serve([first, foreign], bridge=bridge_dir)
    try:
        for query in ("", "?quick=1"):
            assert "problem" not in json.loads(ask(server, f"/api/circuits/0{query}")[1])["steering"]
            steering = json.loads(ask(server, f"/api/circuits/1{query}")[1])["steering"]
            assert "another sparse model" in steering["problem"]
            assert "nodes" not in steering
        status, text, _ = ask(server, "/api/circuits/1/steer", {})
        assert (status, "another sparse model" in json.loads(text)["error"]) == (422, True)
    finally:
        server.close()


def test_a_bridge_that_is_damaged_or_has_lost_its_dense_model_is_one_line(
    run_dir: Path, bridge_dir: Path, live: LiveCircuit, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bridge_dir, copy)
    record = json.loads((copy / "bridge.json").read_text())
    (copy / "bridge.json").write_text(json.dumps({**record, "dense": str(tmp_path / "gone")}))
    with pytest.raises(sc.UserError, match="gone") as refused:
        GivenBridge(copy).steer(live, SteerRequest())
    assert "\n" not in str(refused.value)
    moved = GivenBridge(copy, Path(record["dense"])).steer(live, SteerRequest(nodes=(READ,)))
    assert moved == GivenBridge(bridge_dir).steer(live, SteerRequest(nodes=(READ,)))
    with pytest.raises(sc.UserError, match="does not belong to the dense model"):
        GivenBridge(copy, run_dir).steer(live, SteerRequest())
    for text, words in (("{", "not valid JSON"), ("{}", "no bridge of ours"), (json.dumps({**record, "sparse_id": 3}),
                        "does not say which models")):  # fmt: skip
        (copy / "bridge.json").write_text(text)
        with pytest.raises(sc.UserError, match=words):
            serve(circuit_files(run_dir), bridge=copy)


def test_the_command_takes_a_bridge_or_finds_one_in_the_path(
    run_dir: Path, bridge_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Served:
        url = "http://127.0.0.1:0/"

        def wait(self) -> None:
            pass

    def served(*_given: Any, **named: Any) -> Served:
        asked.append(named)
        return Served()

    monkeypatch.setattr("sparsecircuits.viewer.server.serve", served)
    whole = tmp_path / "whole"
    shutil.copytree(bridge_dir, whole)
    shutil.copytree(run_dir / "circuits", whole / "sparse" / "circuits")
    for path, bridge in ((run_dir, None), (run_dir, bridge_dir), (whole, None)):
        commands.view(arguments.View(path=path, bridge=bridge, open=False))
    assert asked == [{"bridge": bridge, "dense": None} for bridge in (None, bridge_dir, whole)]
    with pytest.raises(sc.UserError, match="give its folder with --bridge"):
        commands.view(arguments.View(path=run_dir, dense=run_dir, open=False))


def test_a_circuit_without_a_run_has_the_model_of_the_bridge(run_dir: Path, bridge_dir: Path, tmp_path: Path) -> None:
    alone = tmp_path / "circuit.json"
    shutil.copy(circuit_files(run_dir)[0], alone)
    library = Library([alone], None, GivenBridge(bridge_dir))
    assert library.payload(library.list()[0].id).live


# ------------------------------------------------------------------ the page


def value(page: Any, row: str) -> float:
    return float(page.locator(f'#drawer tr[data-kind^="{row}"] td').get_attribute("data-value"))


def opened(page: Any) -> None:
    page.keyboard.press("b")
    page.wait_for_selector("#strength")


def controlled(page: Any) -> None:
    """Wait for the controls."""
    page.wait_for_selector('[data-act="save-steering"]:not([disabled])')


def asked(visit: Any) -> list[str]:
    return [url for url in visit.requests if "/steer" in url]


@pytest.mark.browser
def test_the_slider_reads_from_the_curve(visit_bridged: Any, given: GivenBridge, live: LiveCircuit) -> None:
    page = visit_bridged()
    opened(page)
    controlled(page)
    curves, controls = given.steer(live, SteerRequest()), given.controls(live, SteerRequest())
    before = asked(visit_bridged)
    assert len(before) == 2
    page.focus("#strength")
    for place in (0, 1, 2):
        eventually(lambda: page.inner_text("#strength-now"), str(STRENGTHS[place]).removesuffix(".0"))
        assert value(page, "dense model, steered") == pytest.approx(curves.steered[place], rel=1e-5)
        assert value(page, "the same") == pytest.approx(curves.steered_between[place], rel=1e-5)
        assert value(page, "sparse model") == pytest.approx(curves.sparse[place], rel=1e-5)
        assert value(page, "random nodes") == pytest.approx(max(c[place] for c in controls.random_nodes), rel=1e-5)
        assert value(page, "random directions") == pytest.approx(
            max(c[place] for c in controls.random_directions), rel=1e-5
        )
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    eventually(lambda: page.inner_text("#strength-now"), "1")
    assert value(page, "dense model, steered") > 0.9
    assert page.locator(".steer-curves .steer-line.nodes").count() == DRAWS
    middle = page.locator(".steer-dot.dense").bounding_box()
    thumb = page.locator("#strength").bounding_box()
    assert middle["x"] + middle["width"] / 2 == pytest.approx(thumb["x"] + thumb["width"] - 8, abs=4)
    assert asked(visit_bridged) == before  # all that was read from what had come
    assert serious_faults(page) == []


@pytest.mark.browser
def test_nodes_direction_and_prompts_are_chosen(visit_bridged: Any, given: GivenBridge, live: LiveCircuit) -> None:
    page = visit_bridged()
    opened(page)
    page.focus("#strength")
    page.keyboard.press("End")
    page.click("[data-act=nodes-selected]")
    page.wait_for_selector(".steer-none")
    assert page.locator("#strength").count() == 0  # no slider without a curve
    select(page, VALUE)
    page.wait_for_selector(".steer-none")  # a value has no direction in the dense model
    page.click(f".steer-none [data-to='{READ}']")
    request: dict[str, Any] = {"nodes": (READ,)}

    def shows_what_is_asked_for() -> None:
        wanted = given.steer(live, SteerRequest.model_validate(request)).steered[-1]
        page.wait_for_selector("#strength")
        eventually(lambda: value(page, "dense model, steered") == pytest.approx(wanted, rel=1e-5), True)

    shows_what_is_asked_for()
    request["toward"] = "left"
    page.click("[data-act=toward-left]")
    shows_what_is_asked_for()
    request["pair"] = 1
    page.click("#drawer [data-step='1']")
    shows_what_is_asked_for()
    request["over"] = "task"
    page.click("[data-act=over-task]")
    shows_what_is_asked_for()
    assert f"{MEAN_PAIRS} held-out prompts" in page.inner_text(".steer-foot")
    again = visit_bridged(page.url[page.url.index("#") :])  # a link holds what is seen
    again.wait_for_selector("#strength")
    assert again.inner_text(".steer-table thead") == page.inner_text(".steer-table thead")
    assert value(again, "dense model, steered") == value(page, "dense model, steered")


@pytest.mark.browser
def test_a_typed_prompt_is_steered(visit_bridged: Any, given: GivenBridge, live: LiveCircuit) -> None:
    page = visit_bridged()
    opened(page)
    page.keyboard.press("End")
    page.click("#drawer [data-step=own]")
    page.wait_for_selector("#drawer textarea")
    prompts = ("print('yes", 'print("no')
    for name, text in zip(("prompt", "patch"), prompts, strict=True):
        page.fill(f"#drawer textarea[name={name}]", text)
    page.click("#drawer button[type=submit]")
    wanted = given.steer(live, SteerRequest(prompt=prompts[0], patch_prompt=prompts[1]))
    page.wait_for_selector("#strength")
    eventually(lambda: page.locator("#drawer .goes-on code").first.inner_text(), "print('yes")
    page.focus("#strength")
    page.keyboard.press("End")
    assert value(page, "dense model, steered") == pytest.approx(wanted.steered[-1], rel=1e-4)
    page.fill("#drawer textarea[name=patch]", "")
    page.click("#drawer button[type=submit]")
    page.wait_for_selector("#drawer .trouble >> text=give a second one")
    assert page.locator("#strength").count() == 0


@pytest.mark.browser
def test_the_curves_are_saved_as_json(
    visit_bridged: Any, given: GivenBridge, live: LiveCircuit, tmp_path: Path
) -> None:
    page = visit_bridged()
    opened(page)
    controlled(page)
    with page.expect_download() as waited:
        page.click("[data-act=save-steering]")
    waited.value.save_as(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    curves, controls = given.steer(live, SteerRequest(pair=0)), given.controls(live, SteerRequest(pair=0))
    assert saved == {**json.loads(curves.to_json()), **json.loads(controls.to_json())}
    page.click("#export summary")
    with page.expect_download() as waited:
        page.click("[data-format=json]")
    waited.value.save_as(tmp_path / "circuit.json")
    assert json.loads((tmp_path / "circuit.json").read_text())["steered"]["curves"] == json.loads(curves.to_json())


@pytest.mark.browser
def test_there_is_no_panel_where_nothing_can_be_steered(
    visit: Callable[..., Any], visit_bridged: Any, offline_copy: Callable[[Any], Any]
) -> None:
    page = visit("#show=steer")
    assert page.locator("#steer").is_hidden()
    page.keyboard.press("b")
    page.keyboard.press("?")
    assert "bridge" not in page.inner_text("#drawer")
    bridged = visit_bridged()
    opened(bridged)
    offline = offline_copy(bridged)
    assert offline.locator("#steer").is_hidden()
    assert offline.locator("#drawer").is_hidden()
    offline.keyboard.press("b")
    assert offline.locator("#drawer").is_hidden()


@pytest.mark.browser
def test_the_panel_says_that_the_bridge_is_another_models(visit_bridged: Any, bridged: ViewerServer) -> None:
    page = visit_bridged(f"#circuit={ids_of(bridged)[2]}&show=steer", live=False)
    page.wait_for_selector("#drawer .warning >> text=another sparse model")
    assert page.locator("#strength").count() == 0
    assert asked(visit_bridged) == []
