"""Shared fixtures: a small corpus, a hand-made model, a run directory of it, a browser."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processor import Recorder
from slowpage import slow_down
from sparsecircuits.cache import kernels_cache
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.storage import save_native
from sparsecircuits.planted.models import quote_model

# A shell starts what it runs in the background with Ctrl-C ignored, and processes that are started inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    page = parser.getgroup("page", "the viewer's page as on a busy machine (see tests/slowpage.py)")
    page.addoption("--late-answers", type=float, default=0, metavar="SECONDS", help="the server answers so much later")
    page.addoption("--slow-page", type=float, default=1, metavar="TIMES", help="the page's scripts take so much longer")
    help_ = "add to FILE the processor seconds of each import, fixture and test (see tests/processor.py)"
    parser.getgroup("processor", "processor time").addoption(
        "--processor-seconds", type=Path, metavar="FILE", help=help_
    )


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--processor-seconds"):
        config.pluginmanager.register(Recorder(path), "processor-seconds")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep the tests' token caches out of the user's; compiled kernels stay where they are, also in processes that a
    test starts."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR") or str(kernels_cache()))
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


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first is the quickest
    path = next((found for name in names if (found := shutil.which(name))), None)
    try:
        from playwright import sync_api as api
    except ImportError:
        path = None
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium or no playwright: CI must run the browser tests")
        pytest.skip("no Chromium or no playwright")
    with api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=ARGS)
        if (times := request.config.getoption("--slow-page")) > 1:
            slow_down(instance, times)
        yield instance
        instance.close()
