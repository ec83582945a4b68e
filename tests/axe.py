"""What axe-core finds wrong with a page for people who cannot see it or have no mouse."""

from pathlib import Path
from typing import Any


def serious_faults(page: Any) -> list[tuple[str, list[str]]]:
    """Rules that an open page breaks seriously or critically, each with the elements that do."""
    import axe_playwright_python

    if not page.evaluate("typeof axe === 'object'"):
        [script] = Path(axe_playwright_python.__file__).parent.rglob("axe.min.js")
        page.evaluate(script.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [(fault["id"], [node["html"][:160] for node in fault["nodes"]][:3]) for fault in serious]
