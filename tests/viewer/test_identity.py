"""A circuit is known by run, task and content: nothing of one is shown under the title of another."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circuit_ids import ids_of, payload_of
from test_server import ask

import sparsecircuits as sc
from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.server import ViewerServer, serve

NEURON = "0.mlp.post_act.5"
Open = Callable[[str], Any]


def changed(path: Path) -> CircuitData:
    """Another content at the same path, with as many nodes and edges."""
    circuit = CircuitData.load(path)
    circuit = circuit.model_copy(update={"target_loss": circuit.target_loss + 0.01})
    circuit.save(path)
    return circuit


@pytest.fixture
def run(run_dir: Path, tmp_path: Path) -> Path:
    """A run of its own, with one circuit."""
    copy = tmp_path / "handmade"
    shutil.copytree(run_dir, copy, ignore=shutil.ignore_patterns("circuits"))
    shutil.copytree(
        run_dir / "circuits" / "first", copy / "circuits" / "first", ignore=shutil.ignore_patterns("*.groups.json")
    )
    return copy


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    contexts = []

    def opened(url: str) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 720}))
        page = contexts[-1].new_page()
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()


def shown(page: Any) -> str:
    page.wait_for_selector(".vertex.token", timeout=60_000)
    return str(page.inner_text("#eyebrow"))


@pytest.mark.browser
def test_another_circuit_on_the_same_port_is_not_run_under_the_old_title(run: Path, open_page: Open) -> None:
    path = circuit_files(run)[0]
    server = serve([path])
    page = open_page(server.url)
    shown(page)
    server.close()
    other = path.parent.with_name("other") / path.name
    smaller = sc.Circuit.load(path)
    smaller.model_copy(update={"task": "single_double_quote", "edges": ()}).save(other)
    server = serve([other], server.port)
    try:
        page.click(f'#picture .vertex[data-name="{NEURON}"]')
        page.keyboard.press("2")
        page.wait_for_selector("#reload")
        assert "changed" in page.inner_text("#banner")
        assert page.locator("#loss-line").count() == 0
        page.click("#reload")
        page.wait_for_selector("#note >> text=not here")
        assert page.locator("#picture").count() == 0
    finally:
        server.close()


@pytest.mark.browser
def test_a_circuit_that_changed_under_an_open_page(run: Path, open_page: Open) -> None:
    path = circuit_files(run)[0]
    server = serve([path])
    try:
        page = open_page(server.url)
        shown(page)
        page.click(f'#picture .vertex[data-name="{NEURON}"]')
        link = page.url
        new = changed(path)
        page.keyboard.press("2")
        page.wait_for_selector("#reload")
        assert page.locator("#loss-line").count() == 0
        page.click("#reload")
        page.wait_for_selector(f"text=target {new.target_loss:.3f}")
        assert page.locator("#banner").is_hidden()
        page.wait_for_selector(".change", state="detached")  # what was done to the earlier one is not done to this
        old = open_page(link)
        old.wait_for_selector("#note >> text=changed")
        assert old.locator("#picture").count() == 0
        old.click("#instead")
        old.wait_for_selector("#picture .vertex")
        assert ids_of(server)[0] in old.url
    finally:
        server.close()


@pytest.mark.browser
@pytest.mark.parametrize("fragment", ["#circuit=99", "#circuit=0", "#circuit=handmade.nothing.0"])
def test_an_unknown_circuit_is_not_another_one(viewer: ViewerServer, open_page: Open, fragment: str) -> None:
    page = open_page(viewer.url + fragment)
    page.wait_for_selector("#note >> text=not here")
    assert page.locator("#picture").count() == 0
    page.select_option("#circuits", index=0)
    assert "single_double_quote" in shown(page)


@pytest.mark.browser
def test_the_address_says_which_circuit_from_the_start(viewer: ViewerServer, open_page: Open) -> None:
    page = open_page(viewer.url)
    shown(page)
    assert f"circuit={ids_of(viewer)[0]}" in page.url


def test_an_id_means_one_content(run: Path) -> None:
    path = circuit_files(run)[0]
    copy = run / "circuits" / "copy" / path.name
    shutil.copytree(path.parent, copy.parent)
    server = serve([path, copy])
    try:
        first, second = ids_of(server)
        assert first.startswith(f"handmade.{CircuitData.load(path).task}.")
        assert second == f"{first}-2"
        changed(path)
        for method in ("", "?quick=1", "/curve", f"/nodes/{NEURON}", "/offline"):
            status, text, _ = ask(server, f"/api/circuits/{first}{method}")
            assert (status, "reload" in json.loads(text)["error"]) == (409, True), method
        assert ask(server, f"/api/circuits/{first}/run", {})[0] == 409
        assert ask(server, f"/api/circuits/{first}/groups", {"groups": [], "names": {}})[0] == 409
        assert not path.with_name("circuit.groups.json").exists()
        assert ask(server, f"/api/circuits/{second}?quick=1")[0] == 200
        os.unlink(path)
        assert ask(server, f"/api/circuits/{ids_of(server)[0]}")[0] == 422
    finally:
        server.close()


def test_names_given_to_another_circuit_are_not_shown_and_not_lost(run: Path) -> None:
    path = circuit_files(run)[0]
    sidecar = path.with_name("circuit.groups.json")
    server = serve([path])
    try:
        given = {"groups": [], "names": {NEURON: "detector"}}
        assert ask(server, "/api/circuits/0/groups", given)[0] == 200
        assert payload_of(path, quick=True).groups.names == given["names"]
        changed(path)
        payload = payload_of(path, quick=True)
        assert payload.groups.names == {}
        assert "another circuit" in payload.groups_problem
        assert ask(server, "/api/circuits/0/groups", {"groups": [], "names": {}})[0] == 200
        assert "groups_problem" not in payload_of(path, quick=True).model_dump()
        assert json.loads(sidecar.with_suffix(".1.json").read_text())["names"] == given["names"]
        sidecar.write_text("{")
        assert "groups_problem" in payload_of(path, quick=True).model_dump()
    finally:
        server.close()


def test_the_card_of_another_circuit_of_the_same_size_is_told(run: Path) -> None:
    path = circuit_files(run)[0]
    assert payload_of(path).card is not None
    changed(path)
    payload = payload_of(path)
    assert payload.card is None
    assert "another circuit" in payload.card_problem
