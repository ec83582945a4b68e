"""What every request passes before the application sees it: Host, Origin, size; and headers on the way out."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sparsecircuits.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Names of this machine that no other can take. The port is the browser's: a forwarded one is another than ours, and 80
# is not said.
_OWN_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"([a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?)(?::[0-9]{1,5})?")
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
    is larger than any honest request gets 413 before it is read to the end.

    hosts: names beside this machine's own that a proxy may be reached under. Raises UserError for what is no name.
    """

    def __init__(self, app: App, hosts: Iterable[str] = ()) -> None:
        self.app, self._hosts = app, frozenset(name.lower() for name in hosts)
        for name in self._hosts:
            found = _HOST.fullmatch(name)
            if found is None or found[1] != name:
                raise UserError(f"{name!r} is no name of a host: give it without scheme, port and path")

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

    def _schemes(self, host: str) -> tuple[str, ...]:
        """The schemes that a page at this host has; none where it is foreign. A proxy may speak TLS, we do not."""
        if _OWN_HOST.fullmatch(host):
            return ("http",)
        found = _HOST.fullmatch(host)
        return ("http", "https") if found and found[1] in self._hosts else ()

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        values = {name: [v.decode("latin-1") for n, v in headers if n == name] for name in (b"host", b"origin")}
        host = values[b"host"][0].lower() if len(values[b"host"]) == 1 else ""
        schemes = self._schemes(host)
        if not schemes:
            return 403, "this page is for this machine alone (view --allow-host NAME lets a proxy's name pass)"
        # Other pages of this machine have another port, or another name for it: they count as other sites.
        if any(origin.lower() not in [f"{scheme}://{host}" for scheme in schemes] for origin in values[b"origin"]):
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
