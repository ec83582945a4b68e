"""The models of what the server sends: what they dump is the JSON, no more and no less."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from circuit_ids import payload_of
from pydantic import ValidationError
from sample_payload import quote_payload, random_payload
from test_server import ask

from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.schema import CircuitList, Curve, NodeDetails, Payload, RunResult
from sparsecircuits.viewer.sent import Sent
from sparsecircuits.viewer.server import ViewerServer, serve


@pytest.mark.parametrize("payload", [quote_payload(), random_payload(60, 4)], ids=["quote", "random"])
def test_a_payload_comes_back_as_it_was(payload: dict[str, Any]) -> None:
    read = Payload.model_validate(payload)
    assert read.model_dump(mode="json") == payload
    assert json.loads(read.to_json()) == payload
    assert Payload.model_validate(read.model_dump()) == read


@pytest.mark.parametrize(
    ("path", "request_", "model"),
    [
        ("", None, CircuitList),
        ("/0", None, Payload),
        ("/0?quick=1", None, Payload),
        ("/2", None, Payload),
        ("/0/nodes/0.mlp.post_act.5", None, NodeDetails),
        ("/0/nodes/final_resid.4", None, NodeDetails),
        ("/0/curve", None, Curve),
        ("/0/run", {"interventions": [{"kind": "zero", "target": "0.attn.v.0"}], "heads": [[0, 0]]}, RunResult),
        ("/0/run", {"prompt": "x = 1", "scope": "circuit"}, RunResult),
    ],
)
def test_what_the_server_answers_is_of_its_model(
    viewer: ViewerServer, path: str, request_: dict[str, Any] | None, model: type[Sent]
) -> None:
    status, text, _ = ask(viewer, f"/api/circuits{path}", request_)
    assert status == 200
    assert model.model_validate_json(text).to_json() == text


def test_a_picture_of_the_file_alone_says_what_is_known_and_what_is_not(run_dir: Path) -> None:
    payload = payload_of(circuit_files(run_dir)[0], quick=True).model_dump(mode="json")
    assert payload["live"] is None
    assert not {"prompts", "attention", "problem", "card", "details"} & payload.keys()
    assert payload["model"].keys() == {"name", "id"}
    assert all("activations" not in node for node in payload["nodes"])


def test_more_is_checked() -> None:
    payload = Payload.model_validate(quote_payload())
    more = payload.extended(live=False, problem="no model")
    assert more.model_dump() == {**payload.model_dump(), "live": False, "problem": "no model"}
    for wrong in ({"live": "perhaps"}, {"problems": "two"}, {"curve": {"order": []}}):
        with pytest.raises(ValidationError):
            payload.extended(**wrong)


def test_a_folder_whose_name_is_no_text(run_dir: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has only names that are text")
    path = folder / "circuit.json"
    path.write_text(circuit_files(run_dir)[0].read_text())
    (folder / "report.json").write_text("[]")
    bad = folder / "bad" / "circuit.json"
    bad.parent.mkdir()
    bad.write_text("{")
    server = serve([path, bad])
    try:
        first, second = json.loads(ask(server, "/api/circuits")[1])["circuits"]
        payload = json.loads(ask(server, "/api/circuits/0")[1])
        refused = ask(server, "/api/circuits/1")
    finally:
        server.close()
    assert "\ufffd" in first["run"]
    assert "\ufffd" in second["problem"]
    assert "\ufffd" in payload["card_problem"]
    assert (refused[0], "\ufffd" in json.loads(refused[1])["error"]) == (422, True)
