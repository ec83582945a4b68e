"""The ids of circuits, in the order of their files."""

import json
import re
import urllib.request
from pathlib import Path

from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.schema import Payload
from sparsecircuits.viewer.server import ViewerServer


def ids_of(server: ViewerServer) -> list[str]:
    """The ids of a server's circuits."""
    with urllib.request.urlopen(f"{server.url}api/circuits") as answer:
        return [record["id"] for record in json.load(answer)["circuits"]]


def with_ids(address: str, before: str, server: ViewerServer) -> str:
    """An address in which a number after `before` becomes the id of the circuit in that place."""
    return re.sub(rf"(?<={before})\d+", lambda place: ids_of(server)[int(place[0])], address)


def payload_of(path: Path, *, quick: bool = False) -> Payload:
    """The payload of a circuit file alone."""
    library = Library([path])
    return library.payload(library.list()[0].id, quick)
