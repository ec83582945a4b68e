"""What every request passes before the application sees it: Host, Origin, size; and headers on the way out."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Names of this machine that no other can take. The port is the browser's: a forwarded one is another than ours, and 80
# is not said.
_OWN_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
LARGEST_BODY = 256_000  # bytes
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """ASGI middleware. A foreign Host (a rebound name) or Origin (another site's page) gets 403; a body that
    is larger than any honest request gets 413 before it is read to the end."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        body = b""
        while refusal is None and scope["method"] not in ("GET", "HEAD"):
            message = await receive()
            body += message.get("body", b"")
            if len(body) > LARGEST_BODY:
                refusal = (413, f"the request is larger than {LARGEST_BODY:,} bytes")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self.app(scope, _replay(body, receive), _with_headers(send))

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        values = {name: [v.decode("latin-1") for n, v in headers if n == name] for name in (b"host", b"origin")}
        if len(values[b"host"]) != 1 or not _OWN_HOST.fullmatch(values[b"host"][0]):
            return 403, "this page is for this machine alone"
        # Other pages of this machine have another port, or another name for it: they count as other sites.
        if any(origin.lower() != f"http://{values[b'host'][0]}".lower() for origin in values[b"origin"]):
            return 403, "requests of other sites are refused"
        length = dict(headers).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return 413, f"the request is larger than {LARGEST_BODY:,} bytes"
        if scope["method"] == "POST":
            kind = dict(headers).get(b"content-type", b"").split(b";")[0].strip()
            if kind != b"application/json":
                return 415, "send JSON"
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return send_with


async def _refuse(send: Send, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode() + b"\n"})
