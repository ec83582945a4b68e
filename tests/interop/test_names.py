"""Models by name, from a real HTTP server: cached, resumed, checked, and told plainly when it fails."""

import base64
import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import sparsecircuits as sc
from sparsecircuits.cache import models_cache
from sparsecircuits.interop import download, names
from sparsecircuits.models.storage import content_hash

GOLDEN = Path(__file__).parents[1] / "golden" / "openai_checkpoints" / "plain"
PREFIX = "/circuit-sparsity/models/csp_yolo2/"


class Server(ThreadingHTTPServer):
    """Serves the golden model as csp_yolo2, with ranges; `cut` drops a connection after so many bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {PREFIX + path.name: path.read_bytes() for path in GOLDEN.iterdir()}
        self.requests, self.cut, self.corrupt, self.ranges = [], None, False, True
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD with ranges, ETag and Content-MD5."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        server = self.server
        asked = self.headers.get("Range") if server.ranges else None
        server.requests.append((self.command, self.path, asked))
        whole = server.files.get(self.path)
        if whole is None:
            self.send_error(404)
            return
        start, end = 0, len(whole) - 1
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or end), end)
        part = whole[start : end + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(whole)}")
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", hashlib.sha256(whole).hexdigest())
        self.send_header("Content-MD5", base64.b64encode(hashlib.md5(whole).digest()).decode())
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if not body:
            return
        if server.corrupt and self.path.endswith(".pt"):
            part = bytes(len(part))
        if server.cut is not None and self.path.endswith(".pt") and start >= server.cut:
            self.wfile.write(part[:10])
            self.close_connection = True
            return
        self.wfile.write(part)


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Server()
    monkeypatch.setenv("SPARSECIRCUITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(names.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}/circuit-sparsity")
    monkeypatch.setattr(download, "CHUNK", 20_000)
    yield server
    server.shutdown()
    server.server_close()


def cached(name="final_model.pt"):
    return models_cache() / "csp_yolo2" / name


def test_a_name_loads_and_is_asked_for_once(server):
    model, direct = sc.load_model("csp_yolo2"), sc.load_model(GOLDEN)
    assert model.name == "csp_yolo2"
    for name, tensor in direct.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert cached().read_bytes() == (GOLDEN / "final_model.pt").read_bytes()
    asked = len(server.requests)
    sc.load_model("csp_yolo2")
    assert len(server.requests) == asked


def test_a_broken_download_goes_on_where_it_stopped(server):
    server.cut = 60_000
    with pytest.raises(sc.UserError, match="what has arrived is kept"):
        sc.load_model("csp_yolo2")
    assert not cached().exists()
    have = cached("final_model.pt.part").stat().st_size
    assert have == 60_000
    server.cut = None
    server.requests.clear()
    sc.load_model("csp_yolo2")
    fetched = [asked for kind, path, asked in server.requests if kind == "GET" and asked and path.endswith(".pt")]
    assert min(int(asked.removeprefix("bytes=").split("-")[0]) for asked in fetched if asked != "bytes=0-0") >= have
    assert cached().read_bytes() == (GOLDEN / "final_model.pt").read_bytes()


def test_a_part_of_another_version_is_not_continued(server):
    server.cut = 60_000
    with pytest.raises(sc.UserError):
        sc.load_model("csp_yolo2")
    server.cut = None
    model = sc.load_model(GOLDEN)
    path = cached().parent / "other.pt"
    state = torch.load(GOLDEN / "final_model.pt", weights_only=True)
    torch.save({key: tensor + 1 for key, tensor in state.items()}, path)
    server.files[PREFIX + "final_model.pt"] = path.read_bytes()
    assert torch.equal(sc.load_model("csp_yolo2").ln_f.weight, model.ln_f.weight + 1)


def test_damage_on_the_way_is_noticed(server):
    server.corrupt = True
    with pytest.raises(sc.UserError, match="arrived damaged"):
        sc.load_model("csp_yolo2")
    assert not cached().exists()
    assert not cached("final_model.pt.part").exists()


def test_a_cache_gone_bad_is_mended(server):
    sc.load_model("csp_yolo2")
    whole = cached().read_bytes()
    cached().write_bytes(whole[:-100] + bytes(100))
    sc.load_model("csp_yolo2")
    assert cached().read_bytes() == whole


def test_a_server_without_ranges_serves_too(server):
    server.ranges = False
    sc.load_model("csp_yolo2")
    assert cached().read_bytes() == (GOLDEN / "final_model.pt").read_bytes()


@pytest.mark.parametrize("file", ["final_model.pt", "beeg_config.json"])
def test_what_is_no_model_is_discarded(server, file):
    """A web page with the right checksum, as a proxy sends it, is not kept; the next try gets the model."""
    good = server.files[PREFIX + file]
    server.files[PREFIX + file] = b"<html>please log in</html>"
    with pytest.raises(sc.UserError, match=r"is not what it should be, and was discarded"):
        sc.load_model("csp_yolo2")
    assert not [path.name for path in cached().parent.glob(f"*{file}*")]
    server.files[PREFIX + file] = good
    assert sc.load_model("csp_yolo2").name == "csp_yolo2"


def test_what_was_kept_without_having_been_read_is_got_again(server):
    sc.load_model("csp_yolo2")
    page = b"<html>please log in</html>"
    cached().write_bytes(page)
    record = json.loads(cached("final_model.pt.json").read_text())
    del record["checked"]
    record |= {"size": len(page), "sha256": hashlib.sha256(page).hexdigest()}
    cached("final_model.pt.json").write_text(json.dumps(record))
    assert sc.load_model("csp_yolo2").name == "csp_yolo2"


@pytest.mark.filterwarnings("ignore:waiting")
def test_several_at_once_on_an_empty_cache_all_load_and_one_downloads(server):
    with ThreadPoolExecutor(4) as pool:
        models = [future.result() for future in [pool.submit(sc.load_model, "csp_yolo2") for _ in range(4)]]
    assert len({content_hash(model) for model in models}) == 1
    first = [
        path for kind, path, asked in server.requests if asked and asked.startswith("bytes=0-") and asked != "bytes=0-0"
    ]
    assert len(first) == len(set(first)) == 2
    assert not list(cached().parent.glob("*lock*"))


def test_no_connection_and_no_such_name(server, monkeypatch):
    with pytest.raises(sc.UserError, match="does not exist: check the name"):
        sc.load_model("csp_sweep1_4x_3.7Mnonzero_afrac0.25")
    monkeypatch.setenv(names.URL_VARIABLE, "http://127.0.0.1:9/x")
    with pytest.raises(sc.UserError, match=r"cannot download .* check the connection"):
        sc.load_model("csp_yolo2")


def test_what_is_cached_works_offline(server, monkeypatch):
    sc.load_model("csp_yolo2")
    server.shutdown()
    server.server_close()
    sc.load_model("csp_yolo2")
    record = json.loads(cached("final_model.pt.json").read_text())
    assert record["size"] == (GOLDEN / "final_model.pt").stat().st_size


@pytest.mark.parametrize(
    "name",
    ["csp_../../x", "csp_a/b", "csp_..", "hf:../x", "hf:a/b/c", "hf:a/..", "csp_yolo2\n", "csp_yolo2?x", "csp%2e"],
)
def test_names_are_no_paths(name, server):
    assert not names.is_name(name)
    with pytest.raises(sc.UserError):
        sc.load_model(name)
    assert not server.requests


def test_the_hub_is_told_plainly_when_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(sc.UserError, match="cannot get openai/circuit-sparsity"):
        sc.load_model("hf:openai/circuit-sparsity")
