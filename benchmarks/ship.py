"""Put a trained model among those that ship with the package.

python benchmarks/ship.py pack RUN FOLDER       # its weights, the bigram table rounded to a byte an entry; its means
python benchmarks/ship.py move RUN/circuits FOLDER   # circuits found on the run, measured anew; or prune FOLDER
sparsecircuits report FOLDER                    # their cards
python benchmarks/ship.py list FOLDER ABOUT COMMAND MACHINE   # copy it to pretrained/, with its entry
python benchmarks/ship.py means NAME            # put the nodes' means beside a model that has none

The folder's name is the model's. The rounded model is another one than the run's: losses, calibrations and content hash
are of the one that ships. Nodes, edges and the values that nodes are frozen at are the same in both, since the bigram
table is added to the logits alone.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

import sparsecircuits as sc
from sparsecircuits.circuits.losses import measure
from sparsecircuits.data import prepare_tokens
from sparsecircuits.files import sha256, write_text
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.interop.manifest import Manifest, Shipped, ShippedCircuit
from sparsecircuits.interop.pretrained import MANIFEST_NAME, manifest
from sparsecircuits.models.byte_rows import rounded
from sparsecircuits.models.statistics import model_statistics
from sparsecircuits.models.storage import content_hash, read_config, save_means, save_native
from sparsecircuits.models.transformer import count_parameters
from sparsecircuits.nodes.ablation_values import training_means
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.task_score import score_on_task
from sparsecircuits.runs import (
    CIRCUIT_NAME,
    CONFIG_NAME,
    MEANS_NAME,
    METRICS_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    circuit_path,
    circuits_folder,
)
from sparsecircuits.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1] / "pretrained"
PAIRS = 256
KEPT = (CONFIG_NAME, WEIGHTS_NAME, TOKENIZER_NAME, MEANS_NAME, CIRCUIT_NAME, "report.json", "report.md")


@torch.no_grad()
def pack(run: Path, folder: Path) -> None:
    """Write a run's model, rounded, into a folder."""
    model = sc.load_model(run)
    if model.bigram is not None:
        model.bigram.weight.copy_(rounded(model.bigram.weight))
    about = {key: value for key, value in read_config(run / CONFIG_NAME).items() if key in ("train", "data")}
    metrics = read_metrics(run / METRICS_NAME)[-1]
    about["trained"] = {key: metrics[key] for key in ("step", "tokens", "seconds") if key in metrics}
    save_native(model, folder, about)
    save_means(model, training_means(model), folder)
    size = (folder / WEIGHTS_NAME).stat().st_size
    print(f"{folder}: {size / 1e6:.1f} MB, content {content_hash(model)}")


def move(circuits: Path, folder: Path) -> None:
    """Circuits of a run as circuits of its rounded model: calibrated and measured anew."""
    model = sc.load_model(folder)
    assert model.tokenizer is not None
    for path in sorted(circuits.glob("*/circuit.json")):
        found = sc.Circuit.load(path).model_copy(update={"model_id": content_hash(model), "model_name": folder.name})
        task = sc.get_task(found.task, model.tokenizer)
        anew = fitted(model, training_pairs(task), found.gating(model))
        found = found.model_copy(update={"scale": anew.scale, "shift": anew.shift})
        losses = measure(model, found, task)
        found.model_copy(update={"losses": losses}).save(circuit_path(circuits_folder(folder), task.name))
        print(f"{task.name}: {losses.circuit:.4f}, whole model {losses.full_calibrated:.4f}", flush=True)


def entry(name: str, about: str, command: str, machine: str) -> Shipped:
    """What the manifest says of a model among those that ship."""
    folder = ROOT / name
    model = sc.load_model(folder)
    parameters, nonzeros = count_parameters(model)
    assert model.corpus is not None
    assert model.tokenizer is not None
    tokens = prepare_tokens(model.corpus, model.tokenizer)
    validation = model_statistics(model, tokens.val, 65_536)["val_loss"]
    scores = {}
    for task in sc.list_tasks():
        row = score_on_task(model, sc.get_task(task.name, model.tokenizer), "held_out", PAIRS, 0)
        scores[task.name] = (round(row["loss"], 4), round(row["loss_calibrated"], 4))
    circuits = {}
    for path in circuit_files(folder):
        circuit = sc.Circuit.load(path)
        assert circuit.losses is not None
        assert circuit.losses.full_calibrated is not None
        circuits[circuit.task] = ShippedCircuit(
            nodes=len(circuit.nodes),
            edges=len(circuit.edges),
            loss=round(circuit.losses.circuit, 4),
            model_loss=round(circuit.losses.full_calibrated, 4),
        )
    files = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    trained = read_config(folder / CONFIG_NAME)["trained"]
    return Shipped(
        name=name,
        about=about,
        command=command,
        tokens=trained["tokens"],
        hours=round(trained["seconds"] / 3600, 2),
        machine=machine,
        parameters=parameters,
        nonzeros=nonzeros,
        validation_loss=round(validation, 4),
        content_hash=content_hash(model),
        files=files,
        tasks=scores,
        circuits=circuits,
    )


def add_means(name: str) -> None:
    """Make the means of a model that ships without them, over its corpus as it is made today."""
    folder = ROOT / name
    model = sc.load_model(folder)
    save_means(model, training_means(model), folder)
    means = {MEANS_NAME: sha256(folder / MEANS_NAME)}
    models = [
        shipped.model_copy(update={"files": shipped.files | means}) if shipped.name == name else shipped
        for shipped in manifest().models
    ]
    _write(Manifest(models=tuple(models)))


def _write(whole: Manifest) -> None:
    write_text(ROOT / MANIFEST_NAME, json.dumps(whole.model_dump(mode="json"), indent=1) + "\n")


def main(verb: str, *rest: str) -> None:
    """Pack a run, move its circuits, list the folder, or add means."""
    if verb == "means":
        add_means(rest[0])
        return
    if verb in ("pack", "move"):
        {"pack": pack, "move": move}[verb](Path(rest[0]), Path(rest[1]))
        return
    folder, about, command, machine = rest
    name = Path(folder).resolve().name
    shutil.rmtree(ROOT / name, ignore_errors=True)
    for path in Path(folder).rglob("*"):
        if path.name in KEPT:
            (ROOT / name / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, ROOT / name / path.relative_to(folder))
    shipped = entry(name, about, command, machine)
    others = [model for model in manifest().models if model.name != name]
    _write(Manifest(models=(*others, shipped)))


if __name__ == "__main__":
    main(*sys.argv[1:])
