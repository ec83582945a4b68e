"""Circuits, cards and groups that are not what they say: every way in gives the reason, none an exception."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from circuit_ids import payload_of
from test_server import ask

import sparsecircuits as sc
from sparsecircuits.faithfulness.card.card import Report
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.server import ViewerServer, serve

DEEP = {"900 deep": "[" * 900 + "]" * 900, "50,000 deep": "[" * 50_000 + "]" * 50_000, "open": "[" * 50_000}


def first_node(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["nodes"][0].update(changes)


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    """Every mention of the neuron under another name, with the fields that go with it."""

    def change(raw: dict[str, Any]) -> None:
        site, _, index = name.rpartition(".")
        layer, _, kind = site.partition(".")
        for node in raw["nodes"]:
            if node["name"] == "0.mlp.post_act.5":
                known = layer in ("0", "00", "\uff10")
                node |= {"name": name, "site": kind if known else site, "layer": 0 if known else None}
                node["index"] = int(index) if index.strip().replace("_", "").isdigit() else 5
        for edge in raw["edges"]:
            for end in ("source", "target"):
                edge[end] = name if edge[end] == "0.mlp.post_act.5" else edge[end]

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "losses: 5": lambda raw: raw.update(losses=5),
    "losses of text": lambda raw: raw["losses"].update(circuit="low"),
    "a split that is no text": lambda raw: raw["losses"].update(split=5),
    "no prompts": lambda raw: raw["losses"].update(n_pairs=0),
    "half a pair": lambda raw: raw["losses"].update(n_pairs="many"),
    "found_by: text": lambda raw: raw.update(found_by="x"),
    "published losses": lambda raw: raw.update(losses=None, found_by={"published_losses": [5]}),
    "a published loss": lambda raw: raw.update(losses=None, found_by={"published_losses": {"circuit": {"a": 1}}}),
    "a split of published losses": lambda raw: raw.update(losses=None, found_by={"published_losses": {"split": 5}}),
    "an infinite index": lambda raw: raw["nodes"][0].update(index="1e999!"),
    "an infinite mean": lambda raw: raw["nodes"][0].update(mean="1e999!"),
    "an infinite target": lambda raw: raw.update(target_loss="1e999!"),
    "an infinity in found_by": lambda raw: raw.update(found_by={"a": [{"b": "1e999!"}]}),
    "a negative head": first_node(head=-1),
    "a huge head": first_node(head=10**19),
    "a huge index": first_node(index=10**19),
    "an index of true": first_node(index=True),
    "an index of text": first_node(index="0"),
    "a number with 5,000 digits": first_node(index="1" * 5000 + "!"),
    "a huge layer": first_node(layer=10**400),
    "a head where none can be": first_node(head=0),
    "a node that is a number": lambda raw: raw.update(nodes=[5]),
    "nodes that are a number": lambda raw: raw.update(nodes=5),
    "edges of null": lambda raw: raw.update(edges=None),
    "an edge to nowhere": lambda raw: raw["edges"][0].update(target="0.mlp.post_act.6"),
    "one answer": lambda raw: raw.update(answers=["a"]),
    "a surrogate": lambda raw: raw.update(task="\ud800"),
    "a task of a million letters": lambda raw: raw.update(task="x" * 10**6),
    "another version": lambda raw: raw.update(schema_version=2),
    "frozen values of text": lambda raw: raw["frozen"].update({"0.mlp.post_act": "!"}),
    **{
        f"the name {name!r}": renamed(name)
        for name in ("__proto__", "__proto__.5", "constructor.5", "0.mlp.post_act.x", "0.mlp.post_act.0_5",
                     "0.mlp.post_act.05", "00.mlp.post_act.5", "0.mlp.post_act. 5", "0.mlp.post_act.\uff15",
                     "\uff10.mlp.post_act.5", "0.mlp.post_act.-5", "0.mlp.post_act.5\n", "0.attn.y.5", ".5", "")
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def good(run_dir: Path) -> dict[str, Any]:
    raw = json.loads(circuit_files(run_dir)[0].read_text())
    raw.pop("checksum")  # what is refused here is refused for what it says
    return raw


@pytest.fixture(scope="module")
def bad(good: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for each fault."""
    folder, found = tmp_path_factory.mktemp("bad"), {}
    texts = {}
    for words, change in CHANGES.items():
        raw = json.loads(json.dumps(good))
        change(raw)
        texts[words] = json.dumps(raw).replace('"1e999!"', "1e999").replace('1!"', "1").replace('"11111', "11111")
    texts |= {f"found_by {words}": json.dumps({**good, "found_by": 7}).replace("7", t) for words, t in DEEP.items()}
    texts |= DEEP
    texts |= {"nothing": "", "a list": "[]", "a number": "5", "NaN": "NaN", "twice": '{"task": 1, "task": 2}'}
    for place, (words, text) in enumerate(texts.items()):
        found[words] = folder / str(place) / "circuit.json"
        found[words].parent.mkdir()
        found[words].write_text(text)
    return found


@pytest.fixture(scope="module")
def server(bad: dict[str, Path]) -> Iterator[ViewerServer]:
    running = serve(list(bad.values()))
    yield running
    running.close()


def test_the_list_gives_the_reason_of_each(server: ViewerServer, bad: dict[str, Path]) -> None:
    listed = json.loads(ask(server, "/api/circuits")[1])["circuits"]
    assert {words for words, record in zip(bad, listed, strict=True) if record["problem"] is None} == set()
    assert all("is not a circuit" in record["problem"] for record in listed)
    assert all("\n" not in record["problem"] for record in listed)


def test_no_request_for_them_is_an_exception(server: ViewerServer, bad: dict[str, Path]) -> None:
    for place in range(len(bad)):
        for path in ("", "?quick=1", "/curve", "/nodes/final_resid.1", "/offline"):
            status, text, _ = ask(server, f"/api/circuits/{place}{path}")
            assert status == 422, (list(bad)[place], path)
            assert "is not a circuit" in json.loads(text)["error"]


def test_python_gives_the_same_reason(server: ViewerServer, bad: dict[str, Path]) -> None:
    listed = json.loads(ask(server, "/api/circuits")[1])["circuits"]
    for record, path in zip(listed, bad.values(), strict=True):
        with pytest.raises(sc.UserError) as told:
            sc.Circuit.load(path)
        assert str(told.value) == record["problem"]


def test_a_pipe_is_no_circuit(run_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "circuit.json")
    with pytest.raises(sc.UserError, match="no circuit under"):
        circuit_files(tmp_path)


@pytest.mark.parametrize("change", [lambda raw: raw["edges"][0].update(weight=-9.5), lambda raw: raw.update(scale=2.0)])
def test_an_edited_file_is_refused(run_dir: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(circuit_files(run_dir)[0].read_text())
    change(raw)
    (tmp_path / "circuit.json").write_text(json.dumps(raw))
    [record] = Library([tmp_path / "circuit.json"]).list()
    assert "changed after it was saved" in record.problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["edges"][0].update(weight=-9.5), "the weight of 0.attn.act_in.0 → 0.attn.v.0 is -9.5"),
        (lambda raw: raw["nodes"][1].update(head=None) or raw["nodes"][4].update(mean=3.0), "the mean of"),
    ],
)
def test_what_the_model_and_the_file_itself_contradict(
    run_dir: Path, good: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    """Also without a checksum, as a file that somebody wrote has none."""
    raw = json.loads(json.dumps(good))
    change(raw)
    path = tmp_path / "circuit.json"
    path.write_text(json.dumps(raw))
    library = Library([path], run_dir)
    try:
        payload = library.payload(library.list()[0].id)
        assert payload.live is False
        found = payload.problem
    except sc.UserError as error:
        found = str(error)
    assert words in found


QUICK = """
import sys
from pathlib import Path
from sparsecircuits.viewer.library import Library
library = Library([Path(sys.argv[1])])
assert library.payload(library.list()[0].id, quick=True).nodes and library.list()[0].problem is None
assert "torch" not in sys.modules
"""


def test_a_file_is_checked_and_shown_without_torch(run_dir: Path) -> None:
    command = [sys.executable, "-c", QUICK, str(circuit_files(run_dir)[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_circuit_keeps_its_checksum(run_dir: Path, tmp_path: Path) -> None:
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    again = sc.Circuit.load(circuit.save(tmp_path / "circuit.json"))
    assert again == circuit
    reordered = dict(reversed(json.loads((tmp_path / "circuit.json").read_text()).items()))
    (tmp_path / "circuit.json").write_text(json.dumps(reordered, indent=7))  # another way to write the same
    assert sc.Circuit.load(tmp_path / "circuit.json") == circuit


# ------------------------------------------------------------------ beside a circuit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f'{{"losses": {text}}}', "nests more than") for text in DEEP.values()),
        ("[]", "not a card of this version"),
        ('{"losses": 5}', "not a card of this version"),
        ("NaN", "no finite number"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_card_is_told_and_not_shown(run_dir: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "circuit.json"
    path.write_text(circuit_files(run_dir)[0].read_text())
    path.with_name("report.json").write_text(text)
    payload = payload_of(path)
    assert payload.card is None
    assert words in payload.card_problem
    with pytest.raises(sc.UserError, match=words):
        Report.load(path.with_name("report.json"))


def test_the_card_of_another_circuit_is_told(run_dir: Path, tmp_path: Path) -> None:
    first, second = circuit_files(run_dir)[:2]
    (tmp_path / "circuit.json").write_text(second.read_text())
    (tmp_path / "report.json").write_text(first.with_name("report.json").read_text())
    assert "another circuit" in payload_of(tmp_path / "circuit.json").card_problem
    assert payload_of(first).card is not None


@pytest.mark.parametrize("text", [*DEEP.values(), "[]", '{"names": {"a": 1e999}}', '{"names": 5}'])
def test_bad_groups_are_none_and_told(run_dir: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "circuit.json"
    path.write_text(circuit_files(run_dir)[0].read_text())
    path.with_name("circuit.groups.json").write_text(text)
    payload = payload_of(path, quick=True).model_dump(mode="json")
    assert payload["groups"] == {"schema_version": 1, "circuit": None, "groups": [], "names": {}}
    assert payload["groups_problem"]
