"""The wheel in an environment of its own, without network: models, page, pruning and cards work.

`make dist-test` builds it and runs this. The environment's dependencies are those of the one that runs the tests; its
sockets reach this machine alone.
"""

import json
import re
import subprocess
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist
ROOT = Path(__file__).parents[1]
NO_NETWORK = """
import socket
def _guarded(connect):
    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"no network here: {address}")
        return connect(self, address)
    return guarded
socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
"""


def built(pattern: str) -> Path:
    [path] = (ROOT / "dist").glob(pattern)
    return path


@pytest.fixture(scope="module", autouse=True)
def _no_sources_on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> list[str]:
    """The installed program, as a command."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    offline = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*offline, str(built("*.whl"))], check=True)
    site = Path(
        subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    )
    (site / "no_network.py").write_text(NO_NETWORK)
    # Behind the environment's own packages, so that the installed sparsecircuits comes first.
    (site / "borrowed.pth").write_text(f"{sysconfig.get_paths()['purelib']}\nimport no_network\n")
    where = subprocess.check_output([python, "-c", "import sparsecircuits; print(sparsecircuits.__file__)"], text=True)
    assert where.startswith(str(folder))
    return [str(folder / "bin" / "sparsecircuits")]


def said(program: list[str], *arguments: str, cwd: Path) -> dict:
    done = subprocess.run([*program, *arguments, "--json"], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_network_is_cut(program):
    script = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=5)"
    python = str(Path(program[0]).with_name("python"))
    done = subprocess.run([python, "-c", script], capture_output=True, text=True)
    assert "no network here" in done.stderr


def test_view_serves_the_page_of_a_shipped_model(program, tmp_path):
    command = [*program, "view", "pretrained:nano", "--no-open", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stdout is not None
            found = json.loads(server.stdout.readline())
            assert len(found["circuits"]) > 5
            page = urllib.request.urlopen(found["url"], timeout=20).read().decode()
            assert "<title>" in page
            assert not re.search(r'(?:src|href)="https?://', page)
        finally:
            server.terminate()


def test_prune_and_report_on_a_shipped_model(program, tmp_path):
    [circuit] = said(program, "prune", "pretrained:nano", "else_elif", "--out", "found", cwd=tmp_path)["circuits"]
    assert circuit["loss"] < 0.15
    said(program, "report", circuit["path"], "--model", "pretrained:nano", cwd=tmp_path)
    assert (tmp_path / "found" / "else_elif" / "report.html").exists()


def test_claims_are_listed(program, tmp_path):
    assert len(said(program, "reproduce", "--list", cwd=tmp_path)["claims"]) >= 12


def test_the_sdist_holds_what_a_contributor_needs():
    with tarfile.open(built("*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "Makefile", "CONTRIBUTING.md", "CHANGELOG.md", "mkdocs.yml", "docs/help.md"} <= names
    assert {"tests/conftest.py", "pretrained/manifest.json", "locks/dev.txt"} <= names


def test_the_wheel_holds_the_page_and_the_models_but_no_sources_of_the_page():
    with zipfile.ZipFile(built("*.whl")) as archive:
        names = archive.namelist()
    assert any(name.startswith("sparsecircuits/viewer/static/") for name in names)
    assert "sparsecircuits/pretrained/nano/model.safetensors" in names
    assert not any("viewer/web" in name or name.startswith("tests/") for name in names)
