"""How long the viewer takes, as a person sees it: in the page of a real browser.

    python benchmarks/viewer.py RUN [OUT.json]

Serves RUN as `sparsecircuits view` does and opens it in Chromium. Each node of its first circuit is frozen, zeroed,
resampled and patched by a key, in the circuit alone and in the whole model; no change is asked about twice.

- round trip: from the key to the answers before and after on the page
- with loss: from the key to the loss over the task on the page
- first picture: from the address to the picture of the file; live: to the prompts and activations of the model, of a
  server that has just started (model not yet read) and of one that has

Milliseconds: median, 95th percentile and largest. And the bytes of the page's script and style, and the load of the
machine before and after: the processes that ran or waited to, this one's and its browser's among them.
"""

import json
import os
import shutil
import statistics
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import sparsecircuits as sc
from sparsecircuits.files import write_text
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.server import serve

KEYS = "1234"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OPENINGS = 3
SCOPES = ("circuit", "model")
SELECT = """name => {
  const state = new URLSearchParams(location.hash.slice(1)); state.set("at", name); location.hash = state; }"""


def opened(browser: Any, url: str) -> tuple[Any, dict[str, float]]:
    """A page, and milliseconds until its picture and until the model's part of it were there."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.add_init_script("localStorage.setItem('sparsecircuits.guide', 'done')")
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("#picture .vertex", timeout=120_000)
    first = time.perf_counter()
    page.wait_for_selector(".vertex.token", timeout=120_000)
    live = time.perf_counter()
    return page, {"first picture": 1000 * (first - began), "live": 1000 * (live - began)}


def touched(page: Any, nodes: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each change."""
    found: dict[str, list[float]] = {"with loss": []}
    for scope in SCOPES:
        page.click(f"#strip [data-act={scope}]")
        for name in nodes:
            page.evaluate(SELECT, name)
            page.wait_for_selector("#panel.pinned .touch")
            for key in KEYS:
                began = time.perf_counter()
                page.keyboard.press(key)
                page.wait_for_selector("#loss-line", timeout=60_000)
                found["with loss"].append(1000 * (time.perf_counter() - began))
                page.wait_for_selector(".continued", timeout=60_000)
            page.keyboard.press("r")
            page.wait_for_selector("#loss-line", state="detached")
    trips = page.evaluate("performance.getEntriesByName('round trip').map(e => e.duration)")
    return {"round trip": trips, **found}


def summary(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "median": round(statistics.median(ordered), 1),
        "95th percentile": round(ordered[int(0.95 * len(ordered))], 1),
        "largest": round(ordered[-1], 1),
    }


def main(run: str, out: Path | None) -> None:
    """Serve, open, touch, print."""
    paths = circuit_files(run)
    nodes = list(sc.Circuit.load(paths[0]).node_names)
    found: dict[str, Any] = {"run": run, "circuit": paths[0].parent.name, "nodes": len(nodes)}
    found["load"] = [round(os.getloadavg()[0], 1)]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        times: dict[str, list[float]] = {}
        for n in range(OPENINGS):
            server = serve(paths)
            for state in ("server just started", "server warm"):
                page, took = opened(browser, server.url)
                for name, value in took.items():
                    times.setdefault(f"{name}, {state}", []).append(value)
                if state == "server just started":
                    page.close()
            if n < OPENINGS - 1:
                page.close()
                server.close()
        page.keyboard.press("1")  # without anything pinned it does nothing; the first real change warms kernels
        warm = touched(page, nodes[:1])
        page.evaluate("performance.clearMeasures()")
        times |= touched(page, nodes[1:])
        found["first change, cold"] = round(warm["round trip"][0], 1)
        page.close()
        browser.close()
        server.close()
    found["load"].append(round(os.getloadavg()[0], 1))
    found["milliseconds"] = {name: summary(values) for name, values in times.items()}
    static = files("sparsecircuits.viewer").joinpath("static")
    found["bytes"] = {name: len(static.joinpath(name).read_bytes()) for name in ("app.js", "app.css")}
    text = json.dumps(found, indent=1)
    print(text)
    if out is not None:
        write_text(out, text + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
