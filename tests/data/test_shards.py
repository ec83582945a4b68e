"""Shards: split by file, made once, checked on reuse, whole or absent."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from sparsecircuits.data import shards
from sparsecircuits.data.shards import prepare_tokens, split_files, split_sources
from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.tinypython import generate_files
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.errors import UserError
from sparsecircuits.locks import locked

TOKENIZER = Tokenizer.default()
SPEC = "tinypython:60"


def test_split_is_by_file_disjoint_and_stable() -> None:
    files = generate_files(400, 0)
    train, val = split_files(files)
    names = {file.name for file in val}
    assert not names & {file.name for file in train}
    assert len(train) + len(val) == 400
    assert 8 <= len(val) <= 40
    fewer = {file.name for file in split_files(files[:300])[1]}
    assert fewer == {name for name in names if name < "tinypython/000300"}


def test_small_sources_are_in_both_splits() -> None:
    for count in (2, 3, 7):
        train, val = split_files(generate_files(count, 0))
        assert train
        assert val
    train, val = split_files([SourceFile("a.py", "x = 1\n" * 100)])
    assert train[0].text + val[0].text == "x = 1\n" * 100
    assert split_files([SourceFile("a.py", "x = 1\n")])[1] == []
    splits = split_sources({"a": generate_files(3, 0), "b": [SourceFile(f"b/{i}", "x\n") for i in range(3)]})
    for name in ("train", "val"):
        assert list(splits[name]) == ["a", "b"]
        assert all(splits[name].values())


def test_contents(tmp_path: Path) -> None:
    data = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    train, val = split_files(generate_files(60, 0))
    for name, files, tokens in (("train", train, data.train), ("val", val, data.val)):
        assert tokens.dtype == np.dtype("<u2")
        assert data.manifest["splits"][name]["tokens"] == len(tokens)
        assert int((tokens == TOKENIZER.eot_id).sum()) == len(files) == data.manifest["splits"][name]["files"]
        assert tokens[0] == TOKENIZER.eot_id
        assert TOKENIZER.decode(tokens.tolist()) == "".join("<|endoftext|>" + file.text for file in files)
    assert data.manifest["tokenizer"] == TOKENIZER.content_hash
    assert data.manifest["spec"] == SPEC


def test_reused_and_keyed(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    first = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path, progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] == 60
    again = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    assert (first.cached, again.cached) == (False, True)
    assert np.array_equal(first.train, again.train)
    assert not prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path, seed=1).cached
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest", "list"])
def test_damage_is_rebuilt_with_a_warning(tmp_path: Path, damage: str) -> None:
    good = np.array(prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path).train)
    folder = next(tmp_path.iterdir())
    shard, manifest = folder / "train.bin", folder / "manifest.json"
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[1000] ^= 1
        shard.write_bytes(data)
    elif damage == "truncate":
        shard.write_bytes(data[:-2])
    elif damage == "remove":
        shard.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "list":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "splits": []}))
    else:
        manifest.unlink()
    with pytest.warns(UserWarning, match="rebuilding the token cache"):
        rebuilt = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    assert np.array_equal(rebuilt.train, good)
    assert prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path).cached
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "sha256", full)
    with pytest.raises(UserError, match="No space left"):
        prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def _prepare(folder: Path) -> None:
    prepare_tokens("tinypython:400", TOKENIZER, cache_dir=folder)


def test_a_kill_leaves_no_half_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_prepare, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 30
    while process.is_alive() and not any(tmp_path.glob(".*/train.bin")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    whole = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    data = prepare_tokens("tinypython:400", TOKENIZER, cache_dir=tmp_path)
    assert data.cached == bool(whole)
    assert len(data.train) > 100_000


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    folder = next(tmp_path.iterdir())
    (tmp_path / f".{folder.name}-left").mkdir()
    (tmp_path / ".another-left").mkdir()
    (tmp_path / f".{folder.name}.lock").write_text('{"pid": 4194305}')
    (folder / "train.bin").unlink()
    with pytest.warns(UserWarning, match="rebuilding"):
        prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, ".another-left"}


def test_two_processes_may_race(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_prepare, args=(tmp_path,)) for _ in range(2)]
    for process in racers:
        process.start()
    for process in racers:
        process.join()
    assert [process.exitcode for process in racers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_second_waits_for_the_first_and_uses_its_work(tmp_path: Path) -> None:
    first = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path)
    folder = next(tmp_path.iterdir())
    folder.rename(tmp_path / "away")
    said: list[str] = []

    def see(done: int, total: int, label: str) -> None:
        said.append(label)
        (tmp_path / "away").rename(folder)  # the first one's work is done
        opened.close()

    opened = contextlib.ExitStack()
    opened.enter_context(locked(tmp_path / f".{folder.name}.lock", "preparing"))
    second = prepare_tokens(SPEC, TOKENIZER, cache_dir=tmp_path, progress=see)
    assert second.cached
    assert np.array_equal(second.train, first.train)
    assert said == [f"waiting: preparing {SPEC} is going on in process {os.getpid()}"]


def test_default_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECIRCUITS_CACHE", str(tmp_path / "cache"))
    prepare_tokens(SPEC, TOKENIZER)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSECIRCUITS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="SPARSECIRCUITS_CACHE"):
        prepare_tokens(SPEC, TOKENIZER)
