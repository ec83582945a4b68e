"""Take the README's picture from a finished quickstart, in a real browser.

    python docs/make_images.py [RUN]        RUN defaults to quickstart/

Writes docs/images/circuit.png (light) and circuit-dark.png, 1280x720.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

TARGET = Path(__file__).with_name("images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def shoot(page_file: Path) -> None:
    """Screenshots of one circuit page in both colour schemes."""
    TARGET.mkdir(exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("no Chromium found: install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        for scheme, name in (("light", "circuit.png"), ("dark", "circuit-dark.png")):
            view = {"width": 1280, "height": 720}
            context = browser.new_context(viewport=view, color_scheme=scheme, offline=True, device_scale_factor=1.5)
            page = context.new_page()
            page.goto(page_file.resolve().as_uri())
            page.wait_for_timeout(800)
            page.screenshot(path=TARGET / name)
        browser.close()


if __name__ == "__main__":
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart")
    shoot(run / "circuits" / "single_double_quote" / "circuit.html")
