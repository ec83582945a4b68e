"""Shared fixtures: a small corpus, a hand-made model, a run directory of it."""

from pathlib import Path

import pytest

from handmade import quote_model
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.storage import save_native


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep the tests' token caches out of the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SPARSECIRCUITS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder of a few dozen small generated Python files."""
    from sparsecircuits.data.tinypython import generate_files

    folder = tmp_path_factory.mktemp("corpus")
    for place, file in enumerate(generate_files(60, seed=5)):
        (folder / f"file_{place}.py").write_text(file.text)
    return folder


@pytest.fixture(scope="session")
def handmade_run(tmp_path_factory, corpus) -> Path:
    """A run directory that holds the hand-made quote model."""
    directory = tmp_path_factory.mktemp("runs") / "handmade"
    model = quote_model(Tokenizer.default())
    save_native(model, directory, {"train": {"data": str(corpus)}})
    return directory
