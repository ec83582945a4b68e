"""Corpora: what is read, what is left out, what is refused."""

import logging
import os
from pathlib import Path

import pytest

from sparsecircuits.data import duplicates, reading, stdlib
from sparsecircuits.data.corpora import (
    GENERATED_SHARE,
    corpus_fingerprint,
    load_corpus,
    load_sources,
    read_folder,
)
from sparsecircuits.data.duplicates import drop_near_duplicates, jaccard, shingles
from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.tinypython import generate_file
from sparsecircuits.errors import UserError

CODE = "def f(x):\n    return x + 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {
        "b.py": CODE,
        "a.py": generate_file(1),
        "pkg/test_a.py": generate_file(2),
        "tests/c.py": generate_file(3),
        "broken.py": "def f(:\n",
        "empty.py": "\n\n",
        "table.py": "X = [\n" + "    0x1f, 0x20, 'a', \"b\", None,\n" * 60 + "]\n",
        "notes.txt": "hello",
        ".hidden/d.py": generate_file(4),
        "site-packages/e.py": generate_file(5),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "latin.py").write_bytes(b"x = '\xe9'\n")
    (root / "crlf.py").write_bytes(generate_file(6).replace("\n", "\r\n").encode())
    return root


def test_folder_keeps_code_and_drops_the_rest(folder: Path) -> None:
    files = read_folder(folder).files
    assert [file.name for file in files] == [
        f"project/{name}" for name in ("a.py", "b.py", "crlf.py", "pkg/test_a.py", "tests/c.py")
    ]
    assert not any("\r" in file.text for file in files)


@pytest.mark.skipif(os.name == "nt", reason="needs pipes and devices with names")
def test_only_regular_files_of_a_size_are_read_and_the_rest_is_counted(folder: Path, caplog) -> None:
    os.mkfifo(folder / "pipe.py")
    for name, target in (("zero.py", "/dev/zero"), ("broken_link.py", "nothing"), ("loop.py", "loop.py")):
        (folder / name).symlink_to(target)
    (folder / "linked.py").symlink_to(folder / "b.py")
    (folder / "large.py").write_text("x = 1  # " + "y" * reading.LARGEST)
    (folder / "folder.py").mkdir()
    with caplog.at_level(logging.INFO, "sparsecircuits"):
        source = read_folder(folder)
    assert (len(source.files), source.found) == (5, 15)
    assert source.left_out == {
        reading.SPECIAL: 2,
        reading.UNREADABLE: 2,
        reading.LARGE: 1,
        reading.UNPARSED: 1,
        reading.EMPTY: 1,
        stdlib.TABLE: 1,
        reading.ENCODED: 1,
        reading.DUPLICATE: 1,
    }
    assert caplog.messages == [source.describe(str(folder))]
    assert "read 5 of 15 files of" in caplog.text
    assert "larger than 1 MB (1)" in caplog.text


def test_a_pipe_that_comes_in_between_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text(CODE)
    regular = (tmp_path / "a.py").stat()
    os.mkfifo(tmp_path / "b.py")
    monkeypatch.setattr(Path, "stat", lambda *_a, **_k: regular)
    with pytest.raises(reading.LeftOut, match=reading.SPECIAL):
        reading.python_text(tmp_path / "b.py")


COOKIES = {
    "latin-1": "# -*- coding: latin-1 -*-\nx = 'é'\n",
    "cp1251": "#!/usr/bin/python\n# vim: set fileencoding=cp1251 :\nx = 'привет'\n",
    "shift_jis": "# coding: shift_jis\nx = '日本'\n",
    "utf-8-sig": "x = 'é'\n",
}


@pytest.mark.parametrize("encoding", COOKIES)
def test_coding_cookies_are_honoured(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.py").write_bytes(COOKIES[encoding].encode(encoding))
    assert reading.python_text(tmp_path / "a.py") == COOKIES[encoding]


@pytest.mark.parametrize(
    "data",
    [
        b"x = '\xe9'\n",  # Latin-1 without a cookie
        b"# coding: no-such-codec\n",
        b"# coding: rot13\nk = 1\n",
        b"# coding: zlib\n",
        b"# coding: punycode\n",
        b"# coding: utf-16\n",
        b"# coding: ascii\nx = '\xe9'\n",
        b"\xef\xbb\xbf# coding: latin-1\n",
    ],
)
def test_what_no_encoding_fits_is_left_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.py").write_bytes(data)
    with pytest.raises(reading.LeftOut, match=reading.ENCODED):
        reading.python_text(tmp_path / "a.py")


def test_refusals_say_what_is_allowed(tmp_path: Path) -> None:
    for spec in ("nothing", "", "stdlib+", "hg:name", str(tmp_path / "absent")):
        with pytest.raises(UserError, match="a corpus is"):
            load_corpus(spec)
    for spec in ("tinypython:0", "tinypython:x", "tinypython:-3", "tinypython:²", "drills:0"):
        with pytest.raises(UserError, match="whole number"):
            load_corpus(spec)
    with pytest.raises(UserError, match="no Python"):
        load_corpus(str(tmp_path))
    with pytest.raises(UserError, match="twice"):
        load_corpus("tinypython:2+tinypython:2")


def test_mix_keeps_tinypython_the_smaller_share(folder: Path) -> None:
    (folder / "big.py").write_text("".join(generate_file(seed) for seed in range(50, 90)))
    sources = load_sources(f"{folder}+tinypython")
    sizes = {name: sum(len(file.text) for file in source.files) for name, source in sources.items()}
    assert sizes["tinypython"] / sum(sizes.values()) == pytest.approx(GENERATED_SHARE, abs=0.05)
    assert sizes["tinypython"] < sizes[str(folder)]
    assert list(sources) == [str(folder), "tinypython"]


def test_two_generated_sources_share_what_one_has(folder: Path) -> None:
    (folder / "big.py").write_text("".join(generate_file(seed) for seed in range(50, 90)))
    sources = load_sources(f"{folder}+tinypython+drills")
    sizes = {name: sum(len(file.text) for file in source.files) for name, source in sources.items()}
    for kind in ("tinypython", "drills"):
        assert sizes[kind] / sum(sizes.values()) == pytest.approx(GENERATED_SHARE / 2, abs=0.03)
        assert {file.name.split("/")[0] for file in sources[kind].files} == {kind}


def test_seed_changes_generated_files_only(folder: Path) -> None:
    assert load_corpus("tinypython:3", seed=0) != load_corpus("tinypython:3", seed=1)
    assert load_corpus("tinypython:3", seed=1) == load_corpus("tinypython:3", seed=1)
    assert load_corpus(str(folder), seed=0) == load_corpus(str(folder), seed=1)


def test_a_folder_with_a_plus_in_its_name(tmp_path: Path) -> None:
    root = tmp_path / "c++"
    root.mkdir()
    (root / "a.py").write_text(CODE)
    assert [file.name for file in load_corpus(str(root))] == ["c++/a.py"]


def test_fingerprint_follows_the_files(folder: Path) -> None:
    before = corpus_fingerprint(str(folder))
    assert before == corpus_fingerprint(str(folder))
    (folder / "b.py").write_text(CODE + "y = 3\n")
    assert before != corpus_fingerprint(str(folder))
    assert corpus_fingerprint("tinypython:3", seed=0) != corpus_fingerprint("tinypython:3", seed=1)


def test_near_duplicates_keep_the_first() -> None:
    first = generate_file(10)
    lines = first.splitlines()
    files = [
        SourceFile("a", first),
        SourceFile("b", generate_file(11)),
        SourceFile("c", first + "x = 3\n"),
        SourceFile("d", "\n".join(lines[: len(lines) // 3])),
        SourceFile("e", first),
        SourceFile("f", "x = 1\n"),
        SourceFile("g", "x = 1\n"),
        SourceFile("h", "\n"),
    ]
    assert [file.name for file in drop_near_duplicates(files)] == ["a", "b", "d", "f", "h"]
    assert [file.name for file in drop_near_duplicates([])] == []


def test_sketches_find_what_exact_comparison_finds() -> None:
    base = [generate_file(seed) for seed in range(12)]
    files = []
    for i, text in enumerate(base):
        lines = text.splitlines()
        files += [
            SourceFile(f"{i}", text),
            SourceFile(f"{i}x", "\n".join(lines[: -max(1, i * len(lines) // 40)])),
        ]
    kept: list[SourceFile] = []
    for file in files:
        if all(jaccard(shingles(file.text, {}), shingles(other.text, {})) < 0.8 for other in kept):
            kept.append(file)
    assert drop_near_duplicates(files) == kept
    assert len(base) < len(kept) < len(files)


def test_a_shared_header_does_not_make_the_search_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    header = "".join(f"# licence word{i} of {i * 7}\n" for i in range(60))
    files = [SourceFile(f"{seed}", header + generate_file(seed)[:600]) for seed in range(400)]
    compared = 0

    def counted(left, right):
        nonlocal compared
        compared += 1
        return jaccard(left, right)

    monkeypatch.setattr(duplicates, "jaccard", counted)
    kept = drop_near_duplicates([*files, *files, SourceFile("h", header), SourceFile("i", header)])
    assert len(kept) > 350
    assert [file.name for file in kept[-1:]] == ["h"]
    assert compared <= duplicates.RIVALS * 400  # once it was every pair: 80,000


def test_token_hashes_are_looked_up_not_walked() -> None:
    class Memory(dict):
        def __iter__(self):
            raise AssertionError("walked")

        def keys(self):
            raise AssertionError("walked")

    shingles(CODE, Memory(x=1))


def test_stdlib_walk_leaves_out_tests_and_packages() -> None:
    names = [name for name, _ in stdlib.walk(stdlib.stdlib_root(), tests=False)]
    assert names == sorted(names)
    assert {"json/decoder.py", "argparse.py"} <= set(names)
    assert not any(name.startswith(("test/", "site-packages/")) or "/tests/" in name for name in names)
    assert not any(name.startswith(("encodings/cp", "pydoc_data/")) for name in names)
    text = stdlib.readable(stdlib.stdlib_root() / "argparse.py")
    assert "class ArgumentParser" in text
