"""Waits for what a page comes to, however long a busy machine takes; a pause of fixed length is too short on some."""

import time
from collections.abc import Callable
from typing import Any

SECONDS = 20
# Longer than the page waits after a move before it draws the picture at its new size.
REST = """() => new Promise(done => {
  const place = e => { const { x, y, width } = e.getBoundingClientRect(); return [x, y, width]; };
  let [last, frames] = ['', 0];
  const look = () => {
    const now = JSON.stringify([...document.querySelectorAll('#picture, #other-picture, #picture .vertex')].map(place));
    frames = now === last ? frames + 1 : 0;
    last = now;
    if (frames > 15) done(); else requestAnimationFrame(look);
  };
  look();
})"""


def at_rest(page: Any) -> None:
    """Wait until no picture moves any more."""
    page.evaluate(REST)


def eventually(read: Callable[[], Any], wanted: Any) -> None:
    """Wait until what is read equals what is wanted."""
    deadline = time.monotonic() + SECONDS
    while (found := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == wanted


def true_on(page: Any, expression: str) -> None:
    """Wait until an expression is true on the page, whose policy forbids it to evaluate any by itself."""
    eventually(lambda: page.evaluate(expression), True)
