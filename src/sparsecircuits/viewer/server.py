"""Serve written pages on the loopback interface alone."""

import errno
import html
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sparsecircuits.errors import UserError

HOST = "127.0.0.1"


class PageServer:
    """A running server; `url` is where it is."""

    def __init__(self, http: ThreadingHTTPServer) -> None:
        self._http = http
        self.url = f"http://{HOST}:{http.server_address[1]}/"
        self._thread = threading.Thread(target=http.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(timeout=1.0)
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()


def serve(pages: dict[str, Path], port: int = 0) -> PageServer:
    """Serve the pages at /<name>, and at / the only one or a list. Raises UserError for a port in use.

    No path of a request touches the disk: only the given files, by name. A request whose Host is not this
    loopback address is refused, so that no other site's page can reach it by a rebound name.
    """
    contents = {f"/{name}": path.read_bytes() for name, path in pages.items()}
    contents["/"] = next(iter(contents.values())) if len(contents) == 1 else _index(list(pages))
    try:
        http = ThreadingHTTPServer((HOST, port), _handler(contents))
    except OverflowError as error:
        raise UserError(f"{port} is no port: choose 0 to 65535") from error
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error
        raise
    return PageServer(http)


def _index(names: list[str]) -> bytes:
    items = "".join(f'<li><a href="/{html.escape(name)}">{html.escape(name)}</a></li>' for name in names)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>circuits</title>'
        f"<h1>Circuits</h1><ul>{items}</ul></html>"
    ).encode()


def _handler(contents: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            port = self.server.server_port  # type: ignore[attr-defined]
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
                self._answer(403, b"forbidden: this page is for this machine alone\n", "text/plain")
            elif (body := contents.get(self.path.split("?", 1)[0])) is not None:
                self._answer(200, body, "text/html; charset=utf-8")
            else:
                self._answer(404, b"not found\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal is the user's."""

    return Handler
