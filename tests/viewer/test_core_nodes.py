"""Which nodes every circuit of the task needs, and which are of one way among several: saved, sent and shown."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from circuit_ids import payload_of
from sample_payload import quote_payload
from test_page import node

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.pruning.backups import BackupRecord, Way
from sparsecircuits.runs import backups_paths
from sparsecircuits.viewer.picture import render_html


@pytest.fixture
def path(run_dir: Path, tmp_path: Path) -> Path:
    """A circuit file, with nothing beside it."""
    copy = tmp_path / "circuits" / "task" / "circuit.json"
    copy.parent.mkdir(parents=True)
    shutil.copy(circuit_files(run_dir)[0], copy)
    shutil.copytree(run_dir, tmp_path, ignore=shutil.ignore_patterns("circuits"), dirs_exist_ok=True)
    return copy


def record_of(*ways: tuple[str, ...], core: tuple[str, ...]) -> BackupRecord:
    made = tuple(Way(nodes=nodes, edges=(), loss=0.1, loss_left=0.7) for nodes in ways)
    return BackupRecord(target_loss=0.15, ways=made, core=core, exhausted=True, overlap=None)


def save(record: BackupRecord, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"task": "task", **record.model_dump(mode="json")}))


@pytest.mark.parametrize("place", [0, 1])
def test_what_was_found_is_beside_the_circuit_or_around_it(path: Path, place: int) -> None:
    names = tuple(CircuitData.load(path).node_names)
    record = record_of(("0.mlp.post_act.9",), names, core=names[:2])
    save(record, backups_paths(path)[place])
    sent = payload_of(path).backups
    assert sent is not None
    assert (sent.core, sent.ways) == (list(names[:2]), [["0.mlp.post_act.9"], list(names)])
    assert sent.words == record.words


def test_what_is_of_other_circuits_or_damaged_is_left_out(path: Path) -> None:
    assert payload_of(path).backups is None
    save(record_of(("0.mlp.post_act.9",), core=()), backups_paths(path)[0])
    backups_paths(path)[1].parent.mkdir()
    for text in ("{", "[]", '{"core": 5}'):
        backups_paths(path)[1].write_text(text)
        assert payload_of(path).backups is None


@pytest.mark.browser
def test_the_core_is_marked(browser: Any, tmp_path: Path) -> None:
    payload = quote_payload()
    core, other = (entry["name"] for entry in payload["nodes"][:2])
    payload["backups"] = {"words": "There are 3 circuits.", "core": [core], "ways": [[core, other], [core], [core]]}
    file = tmp_path / "page.html"
    file.write_text(render_html(payload), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720})
    try:
        page = context.new_page()
        page.goto(file.as_uri())
        page.wait_for_selector("#picture .vertex.core")
        marked = page.eval_on_selector_all("#picture .vertex.core", "all => all.map(e => e.dataset.name)")
        assert marked == [core]
        assert page.locator("#legend .key >> text=core").get_attribute("title") == "There are 3 circuits."
        page.locator(node(core)).dispatch_event("click")
        page.wait_for_selector("#panel .facts >> text=core: nothing found replaces it")
        page.locator(node(other)).dispatch_event("click")
        page.wait_for_selector("#panel .facts >> text=in 1 of 3")
    finally:
        context.close()
