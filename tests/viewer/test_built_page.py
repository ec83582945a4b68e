"""The built page in `static/` is what `make page` makes of the sources in `web/`."""

import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

VIEWER = Path(str(files("sparsecircuits.viewer")))


def test_the_built_page_is_up_to_date() -> None:
    web = VIEWER / "web"
    names = [
        str(path.relative_to(web).as_posix())
        for d in ("src", "public")
        for path in (web / d).rglob("*")
        if path.is_file()
    ]
    digest = hashlib.sha256()
    for name in sorted([*names, "package-lock.json", "vite.config.ts"]):
        digest.update(f"{name}\n".encode() + (web / name).read_bytes())
    built = (VIEWER / "static" / "sources.sha256").read_text().strip()
    assert built == digest.hexdigest(), "the page was not built from these sources: run `make page`"


def test_the_types_of_the_page_are_those_of_the_models() -> None:
    script = Path(__file__).parents[2] / "docs" / "make_types.py"
    subprocess.run([sys.executable, script, "--check"], check=True)


def test_the_built_page_asks_for_nothing_from_outside() -> None:
    script = (VIEWER / "static" / "app.js").read_text(encoding="utf-8")
    assert "</script" not in script
    assert "<!--" not in script
    assert "eval(" not in script
    assert "new Function" not in script
