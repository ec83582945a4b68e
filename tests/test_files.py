"""Files that are whole or absent, on a full disk and by Windows' rules too; and how every file of text is opened."""

import ast
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import forked
from sparsecircuits.files import atomic_path, sweep, write_text
from sparsecircuits.interop import download
from sparsecircuits.training.checkpoints import save_checkpoint

ROOT = Path(__file__).parents[1]
LIMITED = """
import json, resource, signal, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from sparsecircuits.errors import UserError
from sparsecircuits.files import atomic_path, write_text
from sparsecircuits.training.checkpoints import save_checkpoint

def by_safetensors(path):
    with atomic_path(path) as temporary:
        save_file({"x": torch.zeros(1 << 18)}, temporary)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
folder, told = Path(sys.argv[1]), {}
for name, write in {
    "text": lambda: write_text(folder / "text", "x" * (1 << 18)),
    "torch": lambda: save_checkpoint(folder, 1, {"x": torch.zeros(1 << 18)}, keep=2),
    "safetensors": lambda: by_safetensors(folder / "safetensors"),
}.items():
    try:
        write()
    except UserError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def test_a_full_disk_is_one_line_whoever_writes_and_leaves_nothing(tmp_path):
    done = forked.run(tmp_path, code=LIMITED, check=True)
    told = json.loads(done.stdout)
    assert set(told) == {"text", "torch", "safetensors"}
    assert all(message.startswith(f"cannot write {tmp_path}") for message in told.values())
    assert told["torch"].endswith("the disk is full, or a limit on the size of files is reached")  # it keeps no number
    assert told["text"].endswith(f"text: {os.strerror(errno.EFBIG)}")
    assert told["safetensors"].endswith(f"safetensors: {os.strerror(errno.EFBIG)}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_no_fault_of_the_system_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_path(tmp_path / "x"):
        raise RuntimeError("a bug")
    assert os.listdir(tmp_path) == []


def test_files_are_synced_by_the_rule_of_windows(tmp_path, monkeypatch):
    """There fsync fails for a descriptor that may only read."""
    synced = []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "bad file descriptor")
        synced.append(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "text", "one\ntwo\n")
    save_checkpoint(tmp_path, 1, {"x": torch.zeros(3)}, keep=1)
    with atomic_path(tmp_path / "tensors") as temporary:
        save_file({"x": torch.zeros(3)}, temporary)
    (tmp_path / "source").write_bytes(b"abc")
    download.download(f"file://{tmp_path / 'source'}", tmp_path / "cache" / "got", check=Path.read_bytes)
    assert len(synced) == 7  # checksum, record and version are files too
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\n"


def test_what_killed_writers_left_is_swept_and_what_is_being_written_is_not(tmp_path):
    kill = "import os, sys\nfrom pathlib import Path\nfrom sparsecircuits.files import atomic_path\n"
    kill += "with atomic_path(Path(sys.argv[1])) as path:\n    path.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    target = tmp_path / "a[1].json"
    assert subprocess.run([sys.executable, "-c", kill, target]).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    with atomic_path(tmp_path / "other") as live:
        live.write_text("alive")
        sweep(tmp_path)
        assert os.listdir(tmp_path) == [live.name]
    assert subprocess.run([sys.executable, "-c", kill, target]).returncode == -signal.SIGKILL
    write_text(target, "whole")  # sweeps by itself
    assert sorted(os.listdir(tmp_path)) == ["a[1].json", "other"]


def _calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            of_an_object = isinstance(node.func, ast.Attribute)
            name = node.func.attr if of_an_object else getattr(node.func, "id", "")
            yield node, name, of_an_object


def _mode(node, of_an_object):
    place = 0 if of_an_object else 1
    given = [keyword.value for keyword in node.keywords if keyword.arg == "mode"] or node.args[place : place + 1]
    return given[0].value if given and isinstance(given[0], ast.Constant) else "r"


FILES = [path for folder in ("src", "docs", "benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_text_is_utf_8_with_line_feeds_on_every_system():
    """The platform's own encoding and line ends are never left to decide."""
    loose = []
    for path in FILES:
        for node, name, of_an_object in _calls(path):
            given = {keyword.arg for keyword in node.keywords}
            if name == "open" and not (of_an_object and getattr(node.func.value, "id", "") in ("os", "webbrowser")):
                mode = _mode(node, of_an_object)
                needed = set() if "b" in mode else {"encoding"} if mode == "r" else {"encoding", "newline"}
            elif name == "write_text" and of_an_object:
                needed = {"encoding", "newline"}
            elif name == "read_text" and of_an_object:
                needed = {"encoding"}
            else:
                continue
            if needed - given:
                loose.append(f"{path.relative_to(ROOT)}:{node.lineno} {name} without {', '.join(needed - given)}")
    assert loose == []


def test_nothing_syncs_a_file_that_it_opened_to_read():
    loose = [path for path in FILES for _, name, _ in _calls(path) if name == "fsync" and path.name != "files.py"]
    assert {path.name for path in loose} <= {"shards.py", "download.py"}  # writes itself; calls files.fsync


def test_no_two_test_modules_share_a_name() -> None:
    """pytest imports both under it and fails to collect the second, which shows only when all are run."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names))
