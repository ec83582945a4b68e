"""Locks: one process at a time, whoever is gone holds nothing."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from sparsecircuits import locks
from sparsecircuits.errors import UserError
from sparsecircuits.locks import LOCK_NAME, locked, started

HOLD = """
import sys, time
from pathlib import Path
from sparsecircuits.locks import locked
with locked(Path(sys.argv[1]), "a test"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """(lock file, process that holds it)."""
    file = tmp_path / "run" / LOCK_NAME
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield file, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_held_lock_is_refused_with_the_process_and_a_killed_ones_is_taken_over(holder):
    file, process = holder
    with pytest.raises(UserError, match=rf"^a test is going on in process {process.pid}: wait for it, or end it$"):
        locked(file, "a test").__enter__()
    assert json.loads(file.read_text())["pid"] == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert file.exists(), "a killed process leaves its lock"
    with locked(file, "a test"):
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert not file.exists()


def test_a_lock_can_be_waited_for(holder):
    file, process = holder
    told = []
    threading.Timer(0.3, process.kill).start()
    with locked(file, "a test", wait=told.append):
        assert told == [f"a test is going on in process {process.pid}"]


def test_a_folder_made_for_the_lock_goes_with_it_unless_something_came_into_it(tmp_path):
    with locked(tmp_path / "a" / "b" / LOCK_NAME, "a test"):
        pass
    assert os.listdir(tmp_path) == []
    with locked(tmp_path / "a" / "b" / LOCK_NAME, "a test"):
        (tmp_path / "a" / "b" / "x").write_text("")
    assert os.listdir(tmp_path / "a" / "b") == ["x"]


def test_many_at_once_hold_it_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / LOCK_NAME, "a test", wait=lambda _: None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80


@pytest.mark.parametrize(
    ("record", "free"),
    [
        ({}, True),
        ({"pid": "x"}, True),
        ({"pid": "gone"}, True),
        ({"started": "when another process had this number"}, True),
        ({"started": None}, True),
        (None, False),
        ({"host": "elsewhere"}, False),
    ],
)
def test_without_system_locks_the_record_decides(tmp_path, monkeypatch, record, free):
    def unsupported(handle):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks, "lock", unsupported)
    file = tmp_path / LOCK_NAME
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mine = {"pid": other.pid, "started": started(other.pid), "host": socket.gethostname()}
        assert mine["started"]
        if record == {"pid": "gone"}:
            gone = subprocess.Popen([sys.executable, "-c", ""])
            gone.wait()
            record = {"pid": gone.pid}
        file.write_text(json.dumps({} if record == {} else {**mine, **(record or {})}))
        if free:
            with locked(file, "a test"):
                pass
        else:
            with pytest.raises(UserError, match=rf"process {other.pid}"):
                locked(file, "a test").__enter__()
        other.communicate(b"\n")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(f"cannot write {tmp_path / 'file'}")):
        locked(tmp_path / "file" / LOCK_NAME, "a test").__enter__()
