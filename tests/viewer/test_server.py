"""The server: what it answers, and what it refuses."""

import http.client
import itertools
import json
import socket
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import torch
from circuit_ids import ids_of, with_ids
from waiting import eventually

import sparsecircuits as sc
from sparsecircuits.circuits.run_with import answer_logits, run_with
from sparsecircuits.faithfulness.measures.estimate import estimate
from sparsecircuits.faithfulness.null_tasks import nonsense_task, shuffled_labels
from sparsecircuits.interop import pretrained
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.models.names import NODE_SITES
from sparsecircuits.tasks import SPLITS
from sparsecircuits.tasks.own import FileTask
from sparsecircuits.viewer.guard import Guard
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.live import LiveCircuit
from sparsecircuits.viewer.payload import shown_pairs
from sparsecircuits.viewer.requests import RunRequest
from sparsecircuits.viewer.server import ViewerServer, listening_socket, serve


def ask(
    server: ViewerServer, path: str, body: Any = None, method: str | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of a request that is sent as it stands, but for the circuit's id: a number means the
    circuit in that place."""
    path = with_ids(path, "^/api/circuits/", server)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if body is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def test_a_port_is_never_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows SO_REUSEADDR would let two servers have one port; there the exclusive option is set instead."""
    asked = []

    class Socket(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            asked.append(arguments[1])

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.setattr(socket, "socket", Socket)
    with listening_socket(0) as first, pytest.raises(sc.UserError, match="cannot be used"):
        listening_socket(first.getsockname()[1])
    assert asked == [-5, -5]


def test_pages_and_headers(viewer: ViewerServer) -> None:
    for path in ("/", "/app.js", "/app.css", "/api/circuits"):
        status, text, headers = ask(viewer, path)
        assert status == 200
        assert text
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in ask(viewer, "/")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/app.js",
        "/app.js/../../server.py",
        "/api/circuits/..%2f..%2fetc%2fpasswd",
        "/api/circuits/0/../../../etc/passwd",
        "/docs",
        "/openapi.json",
    ],
)
def test_traversal_finds_nothing(viewer: ViewerServer, path: str) -> None:
    status, text, _ = ask(viewer, path)
    assert status in (404, 409, 422)
    assert "root:" not in text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost:", "", "::1",
     "localhost:123456", "localhost:1@evil.example", "2130706433", "127.0.0.1:80, evil.example", "localhost:\xb2"],
)  # fmt: skip
def test_a_foreign_host_is_refused(viewer: ViewerServer, host: str) -> None:
    assert ask(viewer, "/api/circuits", Host=host)[0] in (400, 403)
    assert ask(viewer, "/api/circuits/0/run", {}, Host=host)[0] in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "localhost:9000", "[::1]:8123", "127.0.0.1:80", "LOCALHOST:9000"]
)
def test_a_forwarded_port_is_this_machine(viewer: ViewerServer, host: str) -> None:
    assert ask(viewer, "/api/circuits", Host=host)[0] == 200
    assert ask(viewer, "/api/circuits/0/run", {}, Host=host, Origin=f"http://{host}")[0] == 200
    for other in ("http://localhost:9001", "http://evil.example", f"https://{host}", "http://"):
        assert ask(viewer, "/api/circuits/0/run", {}, Host=host, Origin=other)[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_a_foreign_origin_is_refused(viewer: ViewerServer, origin: str) -> None:
    assert ask(viewer, "/api/circuits/0/run", {}, Origin=origin)[0] == 403
    assert ask(viewer, "/api/circuits", Origin=origin)[0] == 403
    assert ask(viewer, "/api/circuits", Origin=f"http://127.0.0.1:{viewer.port}")[0] == 200


def test_a_simple_form_of_another_site_is_refused(viewer: ViewerServer) -> None:
    assert ask(viewer, "/api/circuits/0/groups", b"{}", Content_Type="text/plain")[0] == 415


def test_large_requests_are_refused(viewer: ViewerServer) -> None:
    try:
        status, text, _ = ask(viewer, "/api/circuits/0/run", {"prompt": "x" * 10_000_000})
        assert status == 413
        assert "larger" in text
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was read to the end
    chunks = (b"1000\r\n" + b"x" * 0x1000 + b"\r\n") * 200
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=60) as raw:
        head = f"POST /api/circuits/0/run HTTP/1.1\r\nHost: 127.0.0.1:{viewer.port}\r\n"
        raw.sendall((head + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").encode())
        try:
            raw.sendall(chunks + b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        assert b"413" in raw.recv(200)
    assert ask(viewer, "/api/circuits")[0] == 200


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"prompt": "x" * 9000}, "8000"),
        ({"prompt": "x = 1\n" * 400}, "shorten it"),
        ({"prompt": ""}, "empty"),
        ({"pair": 900}, "there are 4 pairs"),
        ({"interventions": [{"kind": "zero", "target": "9.attn.q.1"}]}, "no node"),
        ({"interventions": [{"kind": "explode", "target": "final_resid.1"}]}, "kind"),
        ({"interventions": [{"kind": "scale", "target": "final_resid.1", "factor": 1e9}]}, "1000"),
        ({"interventions": [{"kind": "zero", "target": "final_resid.1"}] * 301}, "300"),
        ({"prompt": "x", "interventions": [{"kind": "patch", "target": "final_resid.1"}]}, "second prompt"),
        ({"heads": [[7, 7]]}, "no head"),
        ({"watch": ["../../etc/passwd"]}, "no node"),
        ({"secret": 1}, "secret"),
    ],
)
def test_bad_requests_are_told(viewer: ViewerServer, request_: dict[str, Any], words: str) -> None:
    status, text, _ = ask(viewer, "/api/circuits/0/run", request_)
    assert status == 422
    assert words in json.loads(text)["error"]


def test_a_circuit_of_another_model_is_shown_but_not_run(viewer: ViewerServer) -> None:
    payload = json.loads(ask(viewer, "/api/circuits/2")[1])
    assert payload["live"] is False
    assert "belongs to model elsewhere" in payload["problem"]
    assert payload["nodes"]
    assert "prompts" not in payload
    status, text, _ = ask(viewer, "/api/circuits/2/run", {})
    assert status == 422
    assert "belongs to model elsewhere" in text


def test_answers_equal_the_python_api(viewer: ViewerServer, run_dir: Path) -> None:
    model = sc.load_model(run_dir)
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    batch = shown_pairs(sc.get_task(circuit.task, model.tokenizer)).rows(2, 4)
    edge, node = circuit.edges[0], circuit.nodes[-1].name
    for scope in ("model", "circuit"):
        for changes in (
            [],
            [{"kind": "mean", "target": node}],
            [{"kind": "patch", "target": node}],
            [{"kind": "zero", "source": edge.source, "target": edge.target}],
        ):
            request = {"pair": 1, "scope": scope, "interventions": changes}
            result = json.loads(ask(viewer, "/api/circuits/0/run", request)[1])
            wanted = run_with(model, circuit, batch, [sc.Intervention(**c) for c in changes], scope=scope)
            logits = answer_logits(circuit, wanted, batch.answers, scope)
            for row in (0, 1):
                assert result["prompts"][row]["after"]["logits"] == pytest.approx(logits[row].tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "name",
    ["0.mlp.post_act.1_0", "0.mlp.post_act.01", "00.mlp.post_act.1", "0.mlp.post_act.%201", "0.mlp.post_act.1%20",
     "0.mlp.post_act.%EF%BC%95", "%EF%BC%90.mlp.post_act.5", "0.mlp.post_act.%C2%B2", "%C2%B2.mlp.post_act.1",
     "0.mlp.post_act.+1", "0.mlp.post_act.-1", "0.mlp.post_act.1%0A", "0.mlp.post_act.x", "0.mlp.post_act.", ".1",
     "__proto__", "0.attn.y.1", "1.mlp.post_act.1", "0.mlp.post_act.32", "0.mlp.post_act." + "9" * 180, "%00"],
)  # fmt: skip
def test_a_name_is_written_in_one_way(viewer: ViewerServer, name: str) -> None:
    status, text, _ = ask(viewer, f"/api/circuits/0/nodes/{name}")
    assert (status, json.loads(text)["error"].count("\n")) == (422, 0)
    assert "no node" in text
    plain = urllib.parse.unquote(name)
    for request in ({"watch": [plain]}, {"interventions": [{"kind": "zero", "target": plain}]},
                    {"interventions": [{"kind": "mean", "source": plain, "target": "0.mlp.post_act.5"}]}):  # fmt: skip
        status, text, _ = ask(viewer, "/api/circuits/0/run", request)
        assert (status, "no node" in text) == (422, True)


def test_an_edge_is_a_weight_or_is_refused(viewer: ViewerServer) -> None:
    """Between all pairs of sites, with every kind of change, and edges that lack an end."""
    ends = [f"0.{site}.{1 if site == 'mlp.post_act' else 0}" for site in NODE_SITES] + ["final_resid.4"]
    found = set()
    for place, (source, target) in enumerate(itertools.product(ends, ends)):
        kind = ("mean", "zero", "resample", "scale", "patch")[place % 5]
        change = {"kind": kind, "source": source, "target": target}
        status, text, _ = ask(viewer, "/api/circuits/0/run", {"interventions": [change]})
        assert status in (200, 422), (change, text)
        assert status == 200 or "no edge" in json.loads(text)["error"]
        found |= {(source, target)} if status == 200 else set()
    assert found == {("0.attn.act_in.0", "0.attn.v.0")}
    for change in (
        {"source": ""},
        {"source": 5},
        {"source": ["0.attn.v.0"]},
        {"source": {"name": "0.attn.v.0"}},
        {"source": "0.attn.act_in.0 → 0.attn.v.0"},
        {"target": ""},
        {"target": None},
        {"edge": "a → b"},
    ):
        request = {"interventions": [{"kind": "zero", "target": "0.attn.v.0", **change}]}  # fmt: skip
        status, text, _ = ask(viewer, "/api/circuits/0/run", request)
        assert (status, json.loads(text)["error"].count("\n")) == (422, 0), change


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"[" * 900 + b"]" * 900, b'{"pair": 1e999}', b'{"pair": NaN}', b"\xff", b'{"prompt": "\\ud800"}',
     b'{"size": 1' + b"0" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_that_are_no_request(viewer: ViewerServer, body: bytes) -> None:
    status, text, _ = ask(viewer, "/api/circuits/0/run", body)
    assert status in (400, 422)
    assert text.strip().count("\n") == 0


def test_a_node_has_every_weight_and_examples(viewer: ViewerServer, run_dir: Path) -> None:
    model = sc.load_model(run_dir)
    found = json.loads(ask(viewer, "/api/circuits/0/nodes/0.mlp.post_act.5")[1])
    lists = {part["title"]: part for part in found["weights"]}
    assert lists["Comes from"]["total"] == int(model.block(0).mlp.c_fc.weight[5].count_nonzero())
    assert lists["Comes from"]["rows"][0]["name"] == "0.mlp.act_in.3"
    assert lists["Goes to"]["rows"][0] == {"name": "0.mlp.resid_delta.4", "weight": pytest.approx(1.0)}
    outside = json.loads(ask(viewer, "/api/circuits/0/nodes/0.attn.v.5")[1])
    assert outside["weights"][0]["rows"]
    text = outside["text"]
    assert text, outside.get("text_problem")
    assert sum(text["histogram"]["counts"]) == round(text["active"] * text["n_tokens"])
    top = next(band for band in text["examples"] if band["band"] == "top")["items"][0]
    assert top["values"][top["at"]] == pytest.approx(text["histogram"]["high"], rel=1e-4)


def test_the_curve_ends_at_the_whole_circuit(viewer: ViewerServer) -> None:
    curve = json.loads(ask(viewer, "/api/circuits/0/curve")[1])
    sizes = [point["size"] for point in curve["points"]]
    assert sizes == list(range(len(curve["order"]) + 1))
    assert curve["points"][0]["loss"] > 0.69
    assert curve["points"][-1]["loss"] < 0.2


def test_groups_are_not_saved_among_models_that_ship(
    viewer: ViewerServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "root", lambda: run_dir.resolve())
    before = sorted(run_dir.rglob("*"))
    status, text = ask(viewer, "/api/circuits/0/groups", {"schema_version": 1, "groups": [], "names": {"a": "b"}})[:2]
    assert status == 422
    assert "ships with the package" in str(text)
    assert sorted(run_dir.rglob("*")) == before


def test_groups_are_saved_beside_the_circuit(viewer: ViewerServer, run_dir: Path) -> None:
    of = sc.Circuit.load(circuit_files(run_dir)[1]).checksum()
    groups = {
        "schema_version": 1,
        "circuit": of,
        "groups": [{"name": "detector", "nodes": ["0.mlp.post_act.5"]}],
        "names": {},
    }
    assert ask(viewer, "/api/circuits/1/groups", {**groups, "circuit": None})[0] == 200
    sidecar = circuit_files(run_dir)[1].with_name("circuit.groups.json")
    assert json.loads(sidecar.read_text()) == groups
    assert json.loads(ask(viewer, "/api/circuits/1?quick=1")[1])["groups"] == groups
    assert ask(viewer, "/api/circuits/1/groups", {"groups": [{"name": "", "nodes": []}]})[0] == 422
    assert ask(viewer, "/api/circuits/%2e%2e/groups", groups)[0] in (404, 409)
    sidecar.unlink()


def test_two_at_once_do_not_disturb_each_other(viewer: ViewerServer) -> None:
    changes = [{"kind": "zero", "target": "0.mlp.post_act.5"}]
    wanted = json.loads(ask(viewer, "/api/circuits/0/run", {})[1])["prompts"][0]["after"]["logits"]
    found: list[list[float]] = []

    def plain() -> None:
        found.append(json.loads(ask(viewer, "/api/circuits/0/run", {})[1])["prompts"][0]["after"]["logits"])

    def changed() -> None:
        ask(viewer, "/api/circuits/0/run", {"interventions": changes})

    threads = [threading.Thread(target=target) for target in (plain, changed) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


def test_a_damaged_circuit_does_not_hide_the_others(run_dir: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad" / "circuit.json"
    bad.parent.mkdir()
    bad.write_text('{"schema_version": 1, "task": "x"')
    server = serve([circuit_files(run_dir)[0], bad])
    try:
        listed = json.loads(ask(server, "/api/circuits")[1])["circuits"]
        assert listed[0]["problem"] is None
        assert "is not a circuit" in listed[1]["problem"]
        status, text, _ = ask(server, "/api/circuits/1")
        assert status == 422
        assert "is not a circuit" in text
    finally:
        server.close()


def test_a_folder_of_runs_and_a_file_without_its_model(run_dir: Path, tmp_path: Path) -> None:
    assert len(circuit_files(run_dir.parent)) == 3
    lonely = tmp_path / "circuit.json"
    lonely.write_text(circuit_files(run_dir)[0].read_text())
    server = serve(circuit_files(lonely))
    try:
        payload = json.loads(ask(server, "/api/circuits/0")[1])
        assert payload["live"] is False
        assert "no model beside" in payload["problem"]
        assert payload["edges"]
    finally:
        server.close()
    with pytest.raises(sc.UserError, match="no circuit at"):
        circuit_files(tmp_path / "nowhere")


def test_show_is_a_page_in_a_frame(run_dir: Path) -> None:
    circuit = sc.Circuit.load(circuit_files(run_dir)[0])
    for shown in (sc.show(circuit), sc.show(circuit, sc.load_model(run_dir))):
        frame = shown._repr_html_()
        assert frame.startswith("<iframe srcdoc=")
        assert 'sandbox="allow-scripts allow-downloads"' in frame
        assert "<script" not in frame


@pytest.mark.parametrize("n", [1, 2, 5, 12, 13])
def test_a_task_of_ones_own_with_few_pairs(run_dir: Path, n: int) -> None:
    """It is shown with as many prompts as there are, and says so."""
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(circuit_files(run_dir)[0])
    pool = {split: tuple(sc.get_task(circuit.task).draw(split, n)) for split in SPLITS}
    shipped = sc.get_task(circuit.task, model.tokenizer)
    task = FileTask(shipped.name, "", shipped.answers, shipped.sample, shipped.tokenizer, pool)
    live = LiveCircuit(model, circuit, task, threading.RLock())
    assert len(live.payload().prompts) == 2 * min(n, 4)
    changes = (sc.Intervention(kind="resample", target="0.mlp.post_act.5"),)
    assert live.loss(RunRequest(interventions=changes)).n_prompts == 2 * n
    assert live.curve().n_prompts == 2 * n


def test_a_task_with_few_pairs_has_nulls_and_no_interval_of_one_pair(run_dir: Path) -> None:
    model = sc.load_model(run_dir)
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    few = FileTask(
        task.name, "", task.answers, task.sample, task.tokenizer, {s: tuple(task.draw(s, 3)) for s in SPLITS}
    )
    for null in (shuffled_labels(few, 0), nonsense_task(few, 0)):
        assert len(null.batch("train", 32).last) == 6
    one, two = (estimate(torch.arange(2.0 * n)) for n in (1, 2))
    assert (one.value, one.low, one.high) == (0.5, None, None)
    assert two.low < two.value < two.high


def test_the_loss_after_a_change_is_the_same_in_any_order(run_dir: Path) -> None:
    """What donors do is kept, apart for each scope and seed: no answer depends on what was asked before."""
    model, circuit = sc.load_model(run_dir), sc.Circuit.load(circuit_files(run_dir)[0])
    task = sc.get_task(circuit.task, model.tokenizer)
    names = circuit.node_names
    asked = [
        RunRequest(scope=scope, seed=seed, interventions=(sc.Intervention(kind=kind, target=name),))
        for scope in ("model", "circuit")
        for kind in ("patch", "resample")
        for seed in (0, 1)
        for name in (names[0], names[-1])
    ]

    def answers(requests: list[RunRequest]) -> dict[RunRequest, tuple[Any, ...]]:
        live = LiveCircuit(model, circuit, task, threading.RLock())
        found = {each: (live.loss(each), live.run(each).prompts, live.continued(each)) for each in requests}
        return {each: (loss.after, prompts[0].after.logits, on) for each, (loss, prompts, on) in found.items()}

    together = answers(asked)
    assert together == answers(asked[::-1])
    alone = {each: answers([each])[each] for each in asked[::5]}
    assert alone == {each: together[each] for each in asked[::5]}


def test_opening_a_circuit_makes_its_first_change_ready(run_dir: Path) -> None:
    """What loads kernels, and what holds without a change, is done while a person looks at the picture."""
    library = Library(circuit_files(run_dir)[:1])
    server = ViewerServer(library)
    try:
        [identifier] = ids_of(server)
        assert ask(server, f"/api/circuits/{identifier}")[0] == 200
        live = library.live(identifier)
        eventually(lambda: {scope for scope, _, changes, _ in live._losses if not changes}, {"circuit", "model"})
        eventually(lambda: len(live._losses), 4)  # and with a change
        assert set(live._before) == {"circuit", "model"}
    finally:
        server.close()


def test_a_circuit_that_cannot_run_is_opened_all_the_same(run_dir: Path) -> None:
    library = Library(circuit_files(run_dir))
    identifier = library.list()[2].id  # of another model
    library.warm(identifier)
    assert library.payload(identifier).live is False


def test_how_the_prompts_go_on(viewer: ViewerServer) -> None:
    node = {"kind": "scale", "factor": -4, "target": "0.mlp.post_act.5", "before_last": 0}
    body = {"scope": "model", "interventions": [node]}
    status, text, _ = ask(viewer, "/api/circuits/0/continued", body)
    run = json.loads(ask(viewer, "/api/circuits/0/run", body)[1])
    assert status == 200
    for on, prompt in zip(json.loads(text)["prompts"], run["prompts"], strict=True):
        assert on["before"][0] == prompt["before"]["top"][0]["token"]
        assert on["after"][0] == prompt["after"]["top"][0]["token"]


def test_a_proxy_that_is_named_may_be_used(run_dir: Path) -> None:
    server = serve(circuit_files(run_dir), hosts=["Hub.example.org"])
    try:
        for host in ("hub.example.org", "HUB.example.org:8443", "localhost:9"):
            assert ask(server, "/api/circuits", Host=host)[0] == 200
            assert ask(server, "/api/circuits", Host=host, Origin=f"http://{host}")[0] == 200
        assert ask(server, "/api/circuits", Host="hub.example.org", Origin="https://hub.example.org")[0] == 200
        for host in (
            "evil.example",
            "hub.example.org.evil.example",
            "xhub.example.org",
            "example.org",
            "hub.example.org:",
        ):
            assert ask(server, "/api/circuits", Host=host)[0] == 403
        for origin in ("https://evil.example", "https://hub.example.org:1", "null"):
            assert ask(server, "/api/circuits", Host="hub.example.org", Origin=origin)[0] == 403
    finally:
        server.close()


@pytest.mark.parametrize("name", ["https://hub.example.org", "hub.example.org:80", "*", "", "a b", "hub/path"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(sc.UserError, match="no name of a host"):
        Guard(None, [name])  # type: ignore[arg-type]


def test_the_port_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    with listening_socket(0) as taken, listening_socket(0) as free:
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr("sparsecircuits.viewer.server.USUAL_PORTS", ports)
        for _ in range(2):
            server = serve(circuit_files(run_dir), port=None)
            assert server.port == ports[1]
            server.close()
