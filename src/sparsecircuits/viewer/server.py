"""Serve the viewer on the loopback interface alone."""

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import uvicorn

from sparsecircuits.errors import UserError
from sparsecircuits.viewer.app import build_app
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.steering import GivenBridge

HOST = "127.0.0.1"
USUAL_PORTS = range(8765, 8775)


class ViewerServer:
    """A running server; `url` is where it is."""

    def __init__(self, library: Library, port: int | None = 0, hosts: Iterable[str] = ()) -> None:
        app = build_app(library, hosts)
        self._socket = usual_socket() if port is None else listening_socket(port)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}/"
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
            lifespan="off",
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(timeout=1.0)
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop serving. What is being answered meanwhile is cut off, and that is no error to print."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._socket.close()


def listening_socket(port: int) -> socket.socket:
    """A listening socket on this machine alone. Raises UserError for a port that cannot be used."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Elsewhere it lets a port be taken again soon after its server ended, on Windows while the server still listens.
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    listener.setsockopt(socket.SOL_SOCKET, exclusive or socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(64)
    except OverflowError as error:
        listener.close()
        raise UserError(f"{port} is no port: choose 0 to 65535") from error
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error
        raise
    return listener


def usual_socket() -> socket.socket:
    """A listening socket on the first usual port that is free, so that links and forwarded ports go on to be right."""
    for port in USUAL_PORTS:
        try:
            return listening_socket(port)
        except UserError:
            continue
    return listening_socket(0)


def serve(
    paths: list[Path],
    port: int | None = 0,
    model: Path | None = None,
    hosts: Iterable[str] = (),
    *,
    bridge: Path | None = None,
    dense: Path | None = None,
) -> ViewerServer:
    """Serve the circuits in these files. port: None takes a usual one, 0 any that is free. model: their model's
    directory, where it is not the run around them. hosts: see `Guard`. bridge: a folder that `bridge` wrote, whose
    dense model the page steers from the circuits; dense: where that is by now.

    Raises UserError for a port in use, and for a bridge of none of the circuits' models."""
    given = GivenBridge(bridge, dense) if bridge is not None else None
    library = Library(paths, model, given)
    if given is not None:
        library.require_bridged()
    return ViewerServer(library, port, hosts)
