"""Take the pictures of the viewer from a finished quickstart, in a real browser.

    python docs/make_images.py [RUN]        RUN defaults to quickstart/

Writes docs/images/: circuit.png and circuit-dark.png (the picture), node.png (the node panel), touch.png (an
intervention), compare.png (two circuits), error.png (a circuit of another model), 1280x720 at 1.5 pixels.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.runs import CHECKPOINTS, circuit_path, circuits_folder
from sparsecircuits.viewer.server import serve

TARGET = Path(__file__).with_name("images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def prepare(run: Path, folder: Path) -> list[Path]:
    """Circuits to show: the run's first, one found with another seed, and one of another model."""
    copy = folder / run.resolve().name
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(CHECKPOINTS))
    first = circuit_files(copy)[0]
    circuit, model = sc.Circuit.load(first), sc.load_model(copy)
    task = sc.get_task(circuit.task, model.tokenizer)
    second = sc.prune(model, task, circuit.target_loss, config=PruneConfig(seed=7, steps=150, restarts=0)).save(
        circuit_path(circuits_folder(copy), "other-seed")
    )
    foreign = circuit.model_copy(update={"model_id": "0" * 32, "model_name": "another-model"})
    third = foreign.save(circuit_path(circuits_folder(copy), "foreign"))
    return [first, second, third]


def act(page: Any, name: str, important: str) -> None:
    """Bring the page into the state that an image shows."""
    if name == "node":
        page.click(f'.vertex[data-name="{important}"]')
        page.wait_for_selector(".text", timeout=120_000)
        page.keyboard.press("m")
    if name == "touch":
        page.click(f'.vertex[data-name="{important}"]')
        page.keyboard.press("4")
        page.wait_for_selector("#loss-line")
    if name == "compare":
        page.select_option("#compare", index=1)
        page.wait_for_selector("#other-picture .vertex", timeout=60_000)


def shoot(url: str, important: str) -> None:
    """All images, each in a fresh page."""
    TARGET.mkdir(exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium found: install the package chromium")
    shots = [("circuit", "light", ""), ("circuit-dark", "dark", ""), ("node", "light", ""), ("touch", "light", "")]
    shots += [("compare", "light", ""), ("error", "light", "")]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        for name, scheme, fragment in shots:
            view = {"width": 1280, "height": 720}
            page = browser.new_page(viewport=view, color_scheme=scheme, device_scale_factor=1.5)  # type: ignore[arg-type]
            page.goto(url + fragment)
            if name == "error":
                page.select_option("#circuits", index=2)
            page.wait_for_selector("#banner:not([hidden])" if name == "error" else ".vertex.token", timeout=120_000)
            act(page, name, important)
            page.wait_for_timeout(900)
            page.screenshot(path=TARGET / f"{name}.png")
            page.close()
        browser.close()


def main(run: Path) -> None:
    """Prepare, serve, shoot."""
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(run, Path(folder))
        nodes = [node for node in sc.Circuit.load(paths[0]).nodes if node.site == "attn.v"]
        important = max(nodes, key=lambda node: node.importance or 0).name
        server = serve(paths)
        shoot(server.url, important)
        server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
