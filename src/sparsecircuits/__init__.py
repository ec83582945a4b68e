"""Train weight-sparse transformers, find the circuits inside them, and look at them.

Names are imported on first use, so that `import sparsecircuits` stays cheap.
"""

import os
from typing import TYPE_CHECKING, Any

# Read by OpenMP when PyTorch is loaded. By default threads that wait for one another spin, so that a step takes ten
# times as long beside a program that keeps one core busy (`benchmarks/busy.py`); asleep, they cost a tenth alone.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

_EXPORTS = {
    "load_model": "sparsecircuits.interop.loading",
    "convert": "sparsecircuits.interop.convert",
    "read_published": "sparsecircuits.interop.published",
    "record": "sparsecircuits.models.hooks",
    "intervene": "sparsecircuits.models.hooks",
    "ModelConfig": "sparsecircuits.models.config",
    "SparseTransformer": "sparsecircuits.models.transformer",
    "generate": "sparsecircuits.models.generation",
    "compile_sparse": "sparsecircuits.inference.runtime",
    "load_sparse": "sparsecircuits.interop.loading",
    "train": "sparsecircuits.training.loop",
    "TrainConfig": "sparsecircuits.training.config",
    "get_task": "sparsecircuits.tasks",
    "list_tasks": "sparsecircuits.tasks",
    "own_task": "sparsecircuits.tasks",
    "write_task_file": "sparsecircuits.tasks",
    "Task": "sparsecircuits.tasks",
    "Pair": "sparsecircuits.tasks",
    "prune": "sparsecircuits.pruning.discovery",
    "backups": "sparsecircuits.pruning.backups",
    "Circuit": "sparsecircuits.circuits.circuit",
    "draw_circuit": "sparsecircuits.inference.drawing",
    "faithfulness": "sparsecircuits.faithfulness.report",
    "run_with": "sparsecircuits.circuits.run_with",
    "Intervention": "sparsecircuits.circuits.intervention",
    "edit": "sparsecircuits.bridges.surgery",
    "Bridge": "sparsecircuits.bridges.bridge",
    "train_bridge": "sparsecircuits.bridges.training",
    "load_bridge": "sparsecircuits.bridges.storage",
    "carry_over": "sparsecircuits.bridges.carrying",
    "CircuitSet": "sparsecircuits.bridges.circuit_set",
    "steer": "sparsecircuits.bridges.steering",
    "show": "sparsecircuits.viewer.notebook",
    "UserError": "sparsecircuits.errors",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from sparsecircuits.bridges.bridge import Bridge as Bridge
    from sparsecircuits.bridges.carrying import carry_over as carry_over
    from sparsecircuits.bridges.circuit_set import CircuitSet as CircuitSet
    from sparsecircuits.bridges.steering import steer as steer
    from sparsecircuits.bridges.storage import load_bridge as load_bridge
    from sparsecircuits.bridges.surgery import edit as edit
    from sparsecircuits.bridges.training import train_bridge as train_bridge
    from sparsecircuits.circuits.circuit import Circuit as Circuit
    from sparsecircuits.circuits.intervention import Intervention as Intervention
    from sparsecircuits.circuits.run_with import run_with as run_with
    from sparsecircuits.errors import UserError as UserError
    from sparsecircuits.faithfulness.report import faithfulness as faithfulness
    from sparsecircuits.inference.drawing import draw_circuit as draw_circuit
    from sparsecircuits.inference.runtime import compile_sparse as compile_sparse
    from sparsecircuits.interop.convert import convert as convert
    from sparsecircuits.interop.loading import load_model as load_model
    from sparsecircuits.interop.loading import load_sparse as load_sparse
    from sparsecircuits.interop.published import read_published as read_published
    from sparsecircuits.models.config import ModelConfig as ModelConfig
    from sparsecircuits.models.generation import generate as generate
    from sparsecircuits.models.hooks import intervene as intervene
    from sparsecircuits.models.hooks import record as record
    from sparsecircuits.models.transformer import SparseTransformer as SparseTransformer
    from sparsecircuits.pruning.backups import backups as backups
    from sparsecircuits.pruning.discovery import prune as prune
    from sparsecircuits.tasks import Pair as Pair
    from sparsecircuits.tasks import Task as Task
    from sparsecircuits.tasks import get_task as get_task
    from sparsecircuits.tasks import list_tasks as list_tasks
    from sparsecircuits.tasks import own_task as own_task
    from sparsecircuits.tasks import write_task_file as write_task_file
    from sparsecircuits.training.config import TrainConfig as TrainConfig
    from sparsecircuits.training.loop import train as train
    from sparsecircuits.viewer.notebook import show as show


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sparsecircuits' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_EXPORTS[name])
    # Importing the package `faithfulness` has put it where its function would be; it can be called as that.
    return globals()[name] if name in globals() else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
