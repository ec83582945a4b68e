"""Take the pictures of the viewer from a model that ships, in a real browser.

    python docs/make_images.py [NAME ...]        all of them, or those named

Writes docs/images/NAME-WIDTH.png, 1280x720 and 1920x1080: quotes, small, medium and large (circuits of 18, 14, 30 and
about 100 nodes of pretrained:nano, the last one two circuits together), dark, card, node (the node's panel), touch (an
intervention), compare (two circuits) and error (a circuit of another model).
"""

import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import sparsecircuits as sc
from sparsecircuits.circuits.extraction import edges_of
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.runs import circuit_path, circuits_folder
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.server import serve

TARGET = Path(__file__).with_name("images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def prepare(folder: Path) -> dict[str, Path]:
    """Circuits to show, by name."""
    run = folder_of("pretrained:nano")
    copy = folder / run.name
    shutil.copytree(run, copy)
    model = sc.load_model(copy)

    def shipped(task: str) -> Path:
        return circuit_path(circuits_folder(copy), task)

    one, two = (sc.Circuit.load(shipped(task)) for task in ("lambda_func", "var_if"))
    names = list(dict.fromkeys((*one.node_names, *two.node_names)))
    nodes = {node.name: node for node in (*two.nodes, *one.nodes)}
    both = one.model_copy(
        update={"nodes": tuple(nodes[name] for name in names), "edges": tuple(edges_of(names, model))}
    )
    circuit = sc.Circuit.load(shipped("enumerate_range"))
    task = sc.get_task(circuit.task, model.tokenizer)
    again = sc.prune(model, task, circuit.target_loss, config=PruneConfig(seed=7, steps=150, restarts=0))
    foreign = circuit.model_copy(update={"model_id": "0" * 32, "model_name": "another-model"})
    return {
        "small": shipped("enumerate_range"),
        "medium": shipped("final_kwarg"),
        "large": both.save(circuit_path(circuits_folder(copy), "both")),
        "quotes": shipped("single_double_quote"),
        "again": again.save(circuit_path(circuits_folder(copy), "again")),
        "foreign": foreign.save(circuit_path(circuits_folder(copy), "foreign")),
    }


SHOTS = {
    "quotes": "quotes", "small": "small", "medium": "medium", "large": "large", "dark": "small", "card": "small",
    "node": "small", "touch": "small", "compare": "small", "error": "foreign",
}  # fmt: skip
"""The circuit that each picture is of."""
SIZES = ((1280, 720), (1920, 1080))


def act(page: Any, name: str, important: str) -> None:
    """Bring the page into the state that an image shows."""
    if name in ("node", "touch"):
        page.click(f'.vertex[data-name="{important}"]')
        page.wait_for_selector("#panel .text", timeout=120_000)
    if name == "node":
        page.keyboard.press("m")
    if name == "touch":
        page.keyboard.press("4")
        page.wait_for_selector(".continued")
    if name == "card":
        page.keyboard.press("c")
        page.wait_for_selector("#drawer .bars")
    if name == "compare":
        page.select_option("#compare", index=4)
        page.wait_for_selector("#other-picture .vertex", timeout=60_000)


def shoot(url: str, ids: dict[str, str], important: str, wanted: list[str]) -> None:
    """Images, each of a fresh page."""
    TARGET.mkdir(exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium found: install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        for name, (width, height) in itertools.product(wanted, SIZES):
            view, scheme = {"width": width, "height": height}, "dark" if name == "dark" else "light"
            page = browser.new_page(viewport=view, color_scheme=scheme)  # type: ignore[arg-type]
            page.add_init_script("localStorage.setItem('sparsecircuits.guide', 'done')")
            page.goto(f"{url}#circuit={ids[SHOTS[name]]}")
            page.wait_for_selector("#banner:not([hidden])" if name == "error" else ".vertex.token", timeout=120_000)
            if name != "error":
                page.wait_for_selector(".vertex .caption", timeout=120_000)
            act(page, name, important)
            page.wait_for_timeout(900)
            page.screenshot(path=TARGET / f"{name}-{width}.png")
            page.close()
        browser.close()


def main(wanted: list[str]) -> None:
    """Prepare, serve, shoot."""
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder))
        nodes = [node for node in sc.Circuit.load(paths["small"]).nodes if node.site == "attn.v"]
        important = max(nodes, key=lambda node: node.importance or 0).name
        server = serve(list(paths.values()))
        records = Library(list(paths.values())).list()
        ids = {name: record.id for name, record in zip(paths, records, strict=True)}
        shoot(server.url, ids, important, wanted)
        server.close()


if __name__ == "__main__":
    main(sys.argv[1:] or list(SHOTS))
