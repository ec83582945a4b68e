"""How long an intervention takes in the viewer: from the request to the answers and the loss over the task.

    python benchmarks/viewer.py RUN

Serves RUN as `sparsecircuits view` does and freezes, zeroes, resamples and patches each node of its first circuit, in
the whole model and in the circuit alone; every request is one that the server has not answered before. Prints
milliseconds: median, 95th percentile and largest.
"""

import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path

import sparsecircuits as sc
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.viewer.library import Library
from sparsecircuits.viewer.server import ViewerServer

KINDS = ("mean", "zero", "resample", "patch")


def ask(url: str, circuit: str, body: dict) -> float:
    """Milliseconds that a POST of JSON takes."""
    host = url.rstrip("/")
    headers = {"Content-Type": "application/json", "Origin": host}
    request = urllib.request.Request(f"{host}/api/circuits/{circuit}/run", json.dumps(body).encode(), headers)
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        json.load(answer)
    return 1000 * (time.perf_counter() - began)


def main(run: Path) -> None:
    """Serve, ask, print."""
    paths = circuit_files(run)
    library = Library(paths)
    server = ViewerServer(library)
    first = library.list()[0].id
    nodes, took = sc.Circuit.load(paths[0]).node_names, []
    try:
        for scope in ("model", "circuit"):
            ask(server.url, first, {"pair": 0, "scope": scope, "interventions": []})
            for node in nodes:
                for kind in KINDS:
                    change = {"kind": kind, "target": node}
                    took.append(ask(server.url, first, {"pair": 0, "scope": scope, "interventions": [change]}))
    finally:
        server.close()
    took.sort()
    print(
        f"{len(took)} interventions: median {statistics.median(took):.0f} ms, 95th percentile "
        f"{took[int(0.95 * len(took))]:.0f} ms, largest {took[-1]:.0f} ms"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
