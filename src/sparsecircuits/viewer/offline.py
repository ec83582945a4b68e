"""What a page that is one file keeps: all that can be shown without the model."""

import threading
from pathlib import Path

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.tasks import Task
from sparsecircuits.viewer.beside import with_card, with_groups
from sparsecircuits.viewer.live import LiveCircuit
from sparsecircuits.viewer.picture import write_picture
from sparsecircuits.viewer.schema import Payload


def recorded(live: LiveCircuit) -> Payload:
    """The payload with every node's weights, examples and words, and the curve of sizes."""
    return live.payload().extended(details=live.details(), curve=live.curve(), words=live.words)


def write_offline(path: Path, circuit_path: Path, model: SparseTransformer, circuit: Circuit, task: Task) -> Path:
    """Write the page of a circuit whose file, with its card, is at `circuit_path`. Returns the page's path."""
    payload = recorded(LiveCircuit(model, circuit, task, threading.RLock()))
    return write_picture(path, with_card(with_groups(payload, circuit_path, circuit), circuit_path, circuit))
