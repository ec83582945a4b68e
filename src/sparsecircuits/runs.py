"""What a run directory holds and where, as data; the one place that knows. Free of torch.

RUN/config.json, model.safetensors, tokenizer.json     the model; means.safetensors, where it ships
RUN/metrics.jsonl, checkpoints/                        its training
RUN/circuits/<task>/circuit.json                       a circuit; beside it what belongs to it:
    report.json, report.md, report.html                its faithfulness card
    circuit.html, circuit.groups.json                  its page, and what a person named on it
    task.jsonl, search/                                the pairs of a task of one's own; the trials of a search
    backups/backups.json, backups/<k>/circuit.json     the circuits that do without one another
"""

from pathlib import Path

CONFIG_NAME, WEIGHTS_NAME, TOKENIZER_NAME = "config.json", "model.safetensors", "tokenizer.json"
MEANS_NAME = "means.safetensors"
"""Mean activations of all nodes over training text, for whoever has not that text at hand."""
METRICS_NAME, CHECKPOINTS = "metrics.jsonl", "checkpoints"
CIRCUITS, CIRCUIT_NAME = "circuits", "circuit.json"
TASK_FILE = "task.jsonl"
BACKUPS_NAME = "backups.json"
RELEASED_CONFIG, RELEASED_WEIGHTS = "beeg_config.json", "final_model.pt"
"""A model in the format that Gao et al. released."""

_CIRCUITS_AT = (CIRCUIT_NAME, f"*/{CIRCUIT_NAME}", f"{CIRCUITS}/*/{CIRCUIT_NAME}", f"*/{CIRCUITS}/*/{CIRCUIT_NAME}")
# Published circuits: viz/<model>/<task>/<sweep>/<k>/viz_data.pt, looked at from any of these folders.
_PUBLISHED_AT = tuple("*/" * depth + "viz_data.pt" for depth in range(6))


def circuits_folder(model: Path) -> Path:
    """Where the circuits of a model lie, which is named by its folder or by a file in it."""
    return (model if model.is_dir() else model.parent) / CIRCUITS


def circuit_path(circuits: Path, task: str) -> Path:
    """The circuit of a task in a folder of circuits."""
    return circuits / task / CIRCUIT_NAME


def card_path(circuit: Path) -> Path:
    """The faithfulness card of a circuit file."""
    return circuit.with_name("report.json")


def page_path(circuit: Path) -> Path:
    """The offline page of a circuit file."""
    return circuit.with_suffix(".html")


def groups_path(circuit: Path) -> Path:
    """The names and groups that a person gave to a circuit file's nodes."""
    return circuit.with_name(circuit.stem + ".groups.json")


def search_folder(circuits: Path, task: str) -> Path:
    """The trials of a search for a task's circuit."""
    return circuits / task / "search"


def backups_folder(circuits: Path, task: str) -> Path:
    """The circuits of a task that do without one another."""
    return circuits / task / "backups"


def backups_paths(circuit: Path) -> list[Path]:
    """Where what was found of the task of a circuit file may be: the circuit is one of them, or lies beside them."""
    return [circuit.parent.parent / BACKUPS_NAME, circuit.parent / "backups" / BACKUPS_NAME]


def holds_model(folder: Path) -> bool:
    """Whether a folder says that it holds a model, ours or a released one."""
    return any((folder / name).exists() for name in (CONFIG_NAME, RELEASED_CONFIG))


def run_of(circuit: Path) -> Path | None:
    """The nearest folder around a circuit file that holds a model."""
    return next(filter(holds_model, circuit.resolve().parents), None)


def circuits_under(folder: Path) -> list[Path]:
    """The circuit files of a circuit's folder, of a run, or of a folder of runs; published ones too."""
    return sorted({file for at in _CIRCUITS_AT + _PUBLISHED_AT for file in folder.glob(at) if file.is_file()})
