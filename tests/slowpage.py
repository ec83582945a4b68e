"""The page as it is on a busy machine: the server's answers come late, and the browser has a part of the processor.

A test that reads what a click or a key brings before it is there passes on an idle machine and fails on a busy one.
`make test-slow-page` runs those of the browser so that each such test fails.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from sparsecircuits.viewer.guard import App, Message, Receive, Send


def late(app: App, seconds: float) -> App:
    """The application with its JSON answered later to browsers; not to other requests, which wait for each answer."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        of_a_browser = any(name == b"sec-fetch-mode" for name, _ in scope.get("headers", []))
        if of_a_browser and scope["path"].startswith("/api/"):
            await asyncio.sleep(seconds)
        await app(scope, receive, send)

    return answer


def slow_down(browser: Any, times: float) -> None:
    """Give the pages that a browser opens from now on so much less of the processor."""

    def slow(make: Callable[..., Any]) -> Callable[..., Any]:
        def page(**options: Any) -> Any:
            made = make(**options)
            made.context.new_cdp_session(made).send("Emulation.setCPUThrottlingRate", {"rate": times})
            return made

        return page

    new_context = browser.new_context

    def context(**options: Any) -> Any:
        made = new_context(**options)
        made.new_page = slow(made.new_page)
        return made

    browser.new_page = slow(browser.new_page)
    browser.new_context = context
