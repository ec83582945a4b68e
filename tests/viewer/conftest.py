"""A server of the hand-made model's circuits."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import waiting
from circuit_ids import with_ids
from waiting import eventually

import sparsecircuits as sc
from slowpage import late
from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.fitting import turn_maps_
from sparsecircuits.bridges.storage import save_bridge
from sparsecircuits.circuits.descriptions import describe
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.models.storage import save_native
from sparsecircuits.planted.models import rotated
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.runs import groups_path
from sparsecircuits.viewer.app import build_app
from sparsecircuits.viewer.picture import render_html
from sparsecircuits.viewer.server import ViewerServer, serve


@pytest.fixture(scope="session", autouse=True)
def _late_answers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Answers that come as late as `--late-answers` says; of a slow page all is waited for as much longer."""
    seconds = request.config.getoption("--late-answers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "SECONDS", waiting.SECONDS * max(1.0, float(request.config.getoption("--slow-page"))))
        if seconds:
            patch.setattr("sparsecircuits.viewer.server.build_app", lambda *given: late(build_app(*given), seconds))
        yield


@pytest.fixture
def slowness(request: pytest.FixtureRequest) -> float:
    """How many times slower than it is the page runs."""
    return float(request.config.getoption("--slow-page"))


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, handmade_run: Path) -> Path:
    """A run of the hand-made model with two circuits: all that pruning finds, and a smaller one of it."""
    folder = tmp_path_factory.mktemp("viewed") / "handmade"
    shutil.copytree(handmade_run, folder, ignore=shutil.ignore_patterns("circuits"))
    model = sc.load_model(folder)
    task = sc.get_task("single_double_quote.plain", model.tokenizer)
    circuit = sc.prune(model, task, config=PruneConfig(steps=40, pairs=8, eval_pairs=48, restarts=0, lr=4e-2))
    path = circuit.save(folder / "circuits" / "first" / "circuit.json")
    described = {"descriptions": tuple(describe(circuit.on(model), task, pairs=16))}  # as the full card has them
    sc.faithfulness(model, circuit, task).model_copy(update=described).save(path.with_name("report.json"))
    kept = circuit.nodes[:-2]
    names = {node.name for node in kept}
    edges = tuple(edge for edge in circuit.edges if {edge.source, edge.target} <= names)
    circuit.model_copy(update={"nodes": kept, "edges": edges}).save(folder / "circuits" / "second" / "circuit.json")
    other = circuit.model_copy(update={"model_id": "0" * 32, "model_name": "elsewhere"})
    other.save(folder / "circuits" / "third" / "circuit.json")
    return folder


@pytest.fixture(scope="session")
def viewer(run_dir: Path) -> Iterator[ViewerServer]:
    server = serve(circuit_files(run_dir))
    yield server
    server.close()


@dataclass
class Visit:
    """Opens pages of the viewer; what they log is kept."""

    browser: Any
    server: ViewerServer
    contexts: list[Any] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __call__(self, fragment: str = "", *, live: bool = True, **options: Any) -> Any:
        context = self.browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * waiting.SECONDS)
        page.add_init_script("localStorage.setItem('sparsecircuits.guide', 'done')")
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.goto(self.server.url + with_ids(fragment, "#circuit=", self.server))  # `#circuit=1` means the second
        page.wait_for_selector("#picture .vertex")
        if live:
            page.wait_for_selector(".vertex.token", timeout=60_000)
        return page


def forget_names(run: Path) -> None:
    """Names and groups that a test gave are no other test's."""
    for path in circuit_files(run):
        groups_path(path).unlink(missing_ok=True)


@contextmanager
def visits(browser: Any, server: ViewerServer) -> Iterator[Visit]:
    """Visits that are over at the end, and in which nothing went wrong."""
    opened = Visit(browser, server)
    yield opened
    for context in opened.contexts:
        context.close()
    eventually(lambda: len(server._server.server_state.tasks), 0)  # what a closed page asked for is done too
    # The browser logs every answer that refuses something; the page says it in words.
    assert not [text for text in opened.troubles if "status of 422" not in text]
    assert all(url.startswith((server.url, "blob:", "data:")) for url in opened.requests)


@pytest.fixture
def visit(browser: Any, viewer: ViewerServer, run_dir: Path) -> Iterator[Callable[..., Any]]:
    forget_names(run_dir)
    try:
        with visits(browser, viewer) as opened:
            yield opened
    finally:
        forget_names(run_dir)


@pytest.fixture
def offline_copy(browser: Any, tmp_path: Path) -> Iterator[Callable[[Any], Any]]:
    """What saves a page as one file and opens that without network."""
    context = browser.new_context(offline=True)

    def saved(page: Any) -> Any:
        page.click("#export summary")
        with page.expect_download() as waited:
            page.click("[data-format=html]")
        waited.value.save_as(tmp_path / "saved.html")
        offline = context.new_page()
        offline.goto((tmp_path / "saved.html").as_uri())
        offline.wait_for_selector(".vertex.token")
        return offline

    yield saved
    context.close()


@pytest.fixture(scope="session")
def bridge_dir(tmp_path_factory: pytest.TempPathFactory, run_dir: Path) -> Path:
    """A bridge by hand from the hand-made model to its rotation: the maps are the rotation itself."""
    folder = tmp_path_factory.mktemp("bridged")
    sparse = sc.load_model(run_dir)
    dense, rotation = rotated(sparse)
    save_native(dense, folder / "turned")
    bridge = Bridge.between(dense, sparse)
    turn_maps_(bridge, rotation)
    save_bridge(bridge, folder / "bridge", str(folder / "turned"), {})
    return folder / "bridge"


@pytest.fixture(scope="session")
def bridged(run_dir: Path, bridge_dir: Path) -> Iterator[ViewerServer]:
    """A server with a bridge, which the third circuit is not of."""
    server = serve(circuit_files(run_dir), bridge=bridge_dir)
    yield server
    server.close()


@pytest.fixture
def visit_bridged(browser: Any, bridged: ViewerServer, run_dir: Path) -> Iterator[Callable[..., Any]]:
    forget_names(run_dir)
    with visits(browser, bridged) as opened:
        yield opened


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a payload as an offline page."""
    contexts = []

    def opened(payload: dict[str, Any], width: int = 1280, height: int = 720) -> Any:
        path = tmp_path / "page.html"
        path.write_text(render_html(payload), encoding="utf-8")
        contexts.append(browser.new_context(offline=True, viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("#picture .vertex")
        return page

    yield opened
    for context in contexts:
        context.close()
