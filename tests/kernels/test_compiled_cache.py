"""Machine code kept on disk: made anew after an upgrade, passed over when damaged, done without when it cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sparsecircuits
from sparsecircuits.cache import cache_root
from sparsecircuits.errors import UserError

GELU = """
import torch
from sparsecircuits.kernels import _cpu_gelu, _jit
value, slope = torch.zeros(1, 8), torch.zeros(1, 8)
_cpu_gelu._gelu_row(torch.ones(8).numpy(), value[0].numpy(), slope[0].numpy())
print(slope[0, 0].item(), sum(_cpu_gelu._gelu_row.stats.cache_hits.values()))
"""


def run(package: Path, cache: str, **more: str) -> tuple[float, int]:
    """GELU's slope at 1 as the package at a folder computes it, and how many kernels came from the cache."""
    env = {**os.environ, "PYTHONPATH": str(package), "NUMBA_CACHE_DIR": "", "SPARSECIRCUITS_CACHE": cache, **more}
    done = subprocess.run([sys.executable, "-c", GELU], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[Path, Path, float]:
    """A copy of the package as an installation of its own, what it compiled, and the slope."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(
        Path(sparsecircuits.__file__).parent,
        folder / "site" / "sparsecircuits",
        ignore=shutil.ignore_patterns("__pycache__", "web", "static"),
    )
    slope, hits = run(folder / "site", str(folder / "cache"))
    assert hits == 0
    return folder / "site", folder / "cache", slope


@pytest.fixture
def cache(compiled, tmp_path) -> Path:
    """What was compiled, for one test alone."""
    return Path(shutil.copytree(compiled[1], tmp_path / "cache"))


def test_a_changed_helper_in_another_file_is_compiled_anew(compiled, cache):
    package, _, first = compiled
    assert run(package, str(cache)) == (first, 1)

    helper = package / "sparsecircuits" / "kernels" / "_cpu_exp.py"
    text = helper.read_text()
    assert "known(LOWEST), v)" in text
    upgraded = text.replace("    scaled = multiply_add", "    v = known(0.0)\n    scaled = multiply_add", 1)
    assert upgraded != text
    try:
        helper.write_text(upgraded)
        os.utime(helper.with_name("_cpu_gelu.py"), (0, 0))  # nothing new in the outer kernel's own file
        os.utime(helper, (0, 0))
        shutil.rmtree(helper.parent / "__pycache__", ignore_errors=True)
        slope, hits = run(package, str(cache))
    finally:
        helper.write_text(text)
        shutil.rmtree(helper.parent / "__pycache__", ignore_errors=True)
    assert hits == 0
    assert abs(slope - first) > 0.1


def test_damaged_files_are_replaced(compiled, cache):
    package, _, first = compiled
    kept = [path for path in cache.rglob("*gelu_row*") if path.suffix in (".nbi", ".nbc")]
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for suffix in (".nbc", ".nbi"):
        for path in kept:
            if path.suffix == suffix:
                path.write_bytes(path.read_bytes()[:7])
        assert run(package, str(cache)) == (first, 0)
    assert run(package, str(cache)) == (first, 1)


def test_kernels_run_without_a_folder_that_can_be_written(compiled, tmp_path):
    package, _, expected = compiled
    (tmp_path / "file").write_text("")
    assert run(package, str(tmp_path / "file" / "under")) == (expected, 0)


def test_a_user_without_a_home(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SPARSECIRCUITS_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="SPARSECIRCUITS_CACHE"):
        cache_root()
