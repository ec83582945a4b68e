"""Take the pictures of the viewer from a model that ships, in a real browser.

    python docs/make_images.py [NAME ...]        all of them, or those named

Writes docs/images/NAME-WIDTH.png, 1280x720 and 1920x1080: quotes (15 nodes of pretrained:versed), hops (41 of
pretrained:apt), brackets (207 of pretrained:able), small, medium and large (14, 30 and about 100 nodes of
pretrained:nano, the last one two circuits together), dark, card, node (its panel), touch (an intervention), compare
(two circuits), error (a circuit of another model) and steer (a bridge from pretrained:nano to itself without AbsTopK in
a rotated basis, whose maps are that rotation).
"""

import dataclasses
import itertools
import json
import shutil
import sys
import tempfile
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import sync_playwright

import sparsecircuits as sc
from sparsecircuits.bridges.bridge import Bridge
from sparsecircuits.bridges.fitting import turn_maps_
from sparsecircuits.bridges.storage import save_bridge
from sparsecircuits.circuits.extraction import edges_of
from sparsecircuits.interop.pretrained import folder_of
from sparsecircuits.models.storage import save_native
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.planted.models import rotated
from sparsecircuits.runs import circuit_path, circuits_folder
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.server import serve

TARGET = Path(__file__).with_name("images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def prepare(folder: Path) -> dict[str, Path]:
    """Circuits to show, by name."""
    copies = {name: folder / name for name in ("nano", "versed", "apt", "able")}
    for name, copy in copies.items():
        shutil.copytree(folder_of(f"pretrained:{name}"), copy)
    nano = copies["nano"]

    def shipped(task: str, run: Path = nano) -> Path:
        return circuit_path(circuits_folder(run), task)

    one, two = (sc.Circuit.load(shipped(task)) for task in ("lambda_func", "var_if"))
    nodes = {node.name: node for node in (*two.nodes, *one.nodes)}
    edges = tuple(edges_of(list(nodes), sc.load_model(nano)))
    both = one.model_copy(update={"nodes": tuple(nodes.values()), "edges": edges})
    foreign = one.model_copy(update={"model_id": "0" * 32, "model_name": "another-model"})
    return {
        "quotes": shipped("single_double_quote", copies["versed"]),
        "hops": shipped("set_or_string_fixedvarname", copies["apt"]),
        "brackets": shipped("bracket_counting", copies["able"]),
        "small": shipped("enumerate_range"),
        "medium": shipped("final_kwarg"),
        "large": both.save(circuit_path(circuits_folder(nano), "both")),
        "left": shipped("indent_for"),
        "right": shipped("single_double_quote"),
        "turned": shipped("while_return_true"),
        "foreign": foreign.save(circuit_path(circuits_folder(nano), "foreign")),
    }


def bridge_of(run: Path, folder: Path) -> Path:
    """A bridge from a model to its rotation without AbsTopK."""
    sparse = sc.load_model(run)
    relaxed = SparseTransformer(dataclasses.replace(sparse.config, afrac=None)).eval()
    relaxed.load_state_dict(sparse.state_dict())
    dense, rotation = rotated(relaxed)
    save_native(dense, folder / "rotated-dense")
    bridge = Bridge.between(dense, sparse)
    turn_maps_(bridge, rotation)
    save_bridge(bridge, folder / "bridge", str(folder / "rotated-dense"), {})
    return folder / "bridge"


SHOTS = {
    **{name: name for name in ("quotes", "hops", "brackets", "small", "medium", "large")},
    **dict.fromkeys(("dark", "card", "node", "touch"), "small"), "compare": "left", "error": "foreign",
    "steer": "turned",
}  # fmt: skip
"""The circuit that each picture is of."""
SIZES = ((1280, 720), (1920, 1080))


def act(page: Any, name: str, important: str, ids: dict[str, str]) -> None:
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
    if name == "steer":
        page.keyboard.press("b")
        page.wait_for_selector('[data-act="save-steering"]:not([disabled])', timeout=120_000)
        page.locator("#strength").fill("8")
    if name == "compare":
        page.select_option("#compare", ids["right"])
        page.wait_for_selector("#other-picture .vertex", timeout=60_000)


def lacks_words(url: str, identifier: str) -> bool:
    """Whether no card says what the nodes of a circuit fire on, so that it is measured, and comes last."""
    with urllib.request.urlopen(f"{url}api/circuits/{quote(identifier)}") as answer:
        payload = json.load(answer)
    return bool(payload.get("live")) and "words" not in payload


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
            late = lacks_words(url, ids[SHOTS[name]])
            with page.expect_response("**/words", timeout=240_000) if late else nullcontext():
                page.goto(f"{url}#circuit={ids[SHOTS[name]]}")
            page.wait_for_selector("#banner:not([hidden])" if name == "error" else ".vertex.token", timeout=120_000)
            act(page, name, important, ids)
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
        shoot(server.url, ids, important, [name for name in wanted if name != "steer"])
        server.close()
        if "steer" in wanted:
            server = serve([paths["turned"]], bridge=bridge_of(Path(folder) / "nano", Path(folder)))
            shoot(server.url, ids, important, ["steer"])
            server.close()


if __name__ == "__main__":
    main(sys.argv[1:] or list(SHOTS))
