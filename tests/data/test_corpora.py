"""Corpora: what is read, what is left out, what is refused."""

from pathlib import Path

import pytest

from sparsecircuits.data import stdlib
from sparsecircuits.data.corpora import (
    TINYPYTHON_SHARE,
    corpus_fingerprint,
    folder_files,
    load_corpus,
    load_sources,
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
    files = folder_files(folder)
    assert [file.name for file in files] == [
        f"project/{name}" for name in ("a.py", "b.py", "crlf.py", "pkg/test_a.py", "tests/c.py")
    ]
    assert not any("\r" in file.text for file in files)


def test_refusals_say_what_is_allowed(tmp_path: Path) -> None:
    for spec in ("nothing", "", "stdlib+", "hg:name", str(tmp_path / "absent")):
        with pytest.raises(UserError, match="a corpus is"):
            load_corpus(spec)
    for spec in ("tinypython:0", "tinypython:x", "tinypython:-3", "tinypython:²"):
        with pytest.raises(UserError, match="whole number"):
            load_corpus(spec)
    with pytest.raises(UserError, match="no Python"):
        load_corpus(str(tmp_path))
    with pytest.raises(UserError, match="twice"):
        load_corpus("tinypython:2+tinypython:2")


def test_mix_keeps_tinypython_the_smaller_share(folder: Path) -> None:
    (folder / "big.py").write_text("".join(generate_file(seed) for seed in range(50, 90)))
    sources = load_sources(f"{folder}+tinypython")
    sizes = {name: sum(len(file.text) for file in files) for name, files in sources.items()}
    assert sizes["tinypython"] / sum(sizes.values()) == pytest.approx(TINYPYTHON_SHARE, abs=0.05)
    assert sizes["tinypython"] < sizes[str(folder)]
    assert list(sources) == [str(folder), "tinypython"]


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


def test_stdlib_walk_leaves_out_tests_and_packages() -> None:
    names = [name for name, _ in stdlib.walk(stdlib.stdlib_root(), tests=False)]
    assert names == sorted(names)
    assert {"json/decoder.py", "argparse.py"} <= set(names)
    assert not any(name.startswith(("test/", "site-packages/")) or "/tests/" in name for name in names)
    assert not any(name.startswith(("encodings/cp", "pydoc_data/")) for name in names)
    text = stdlib.readable(stdlib.stdlib_root() / "argparse.py")
    assert text is not None
    assert "class ArgumentParser" in text
