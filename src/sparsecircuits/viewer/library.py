"""The circuits that `view` is given: found on disk once, loaded when they are asked for."""

import contextlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.circuit_files import load_circuit, read_circuit
from sparsecircuits.runs import run_of
from sparsecircuits.viewer.beside import card_beside, save_groups, with_card, with_groups
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.identity import circuit_id, content_of_file, copy_id
from sparsecircuits.viewer.peek import file_payload
from sparsecircuits.viewer.schema import CircuitRecord, Payload
from sparsecircuits.viewer.steering import GivenBridge

if TYPE_CHECKING:
    from sparsecircuits.faithfulness.card.schema import CardData
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.viewer.live import LiveCircuit


class Changed(UserError):
    """What a request names is not what is here now."""


Stamp = tuple[int, ...] | None


@dataclass
class Entry:
    """One circuit file as it was read. `problem` says why it cannot be, or why its model cannot be used."""

    id: str
    path: Path
    stamp: Stamp
    """Of the file when it was read: by it one sees that it has changed."""
    circuit: CircuitData | None = field(default=None, repr=False)
    problem: str | None = None
    live: "LiveCircuit | None" = field(default=None, repr=False)
    tried: bool = False


class Library:
    """Circuits by their ids (see `identity`). The ids are made here: what a request names is looked up, never opened;
    and a file is read anew when it has changed, so that an id never means another content."""

    def __init__(self, paths: list[Path], model: Path | None = None, bridge: GivenBridge | None = None) -> None:
        self._model_path = Path(model) if model else None
        self._bridge = bridge
        self._models: dict[Path, tuple[SparseTransformer, threading.RLock]] = {}
        self._lock = threading.RLock()
        self._paths = list(paths)
        self._entries: dict[Path, Entry] = {}
        self._refresh()

    def _refresh(self) -> dict[str, Entry]:
        """The circuits as the files are now, by id."""
        with self._lock:
            found: dict[str, Entry] = {}
            for path in self._paths:
                entry = self._entries.get(path)
                if entry is None or entry.stamp != _stamp(path):
                    entry = _read(path)
                name, copies = entry.id, 2
                while entry.id in found:
                    entry.id, copies = copy_id(name, copies), copies + 1
                found[entry.id] = self._entries[path] = entry
            return found

    def list(self) -> list[CircuitRecord]:
        """One record per circuit, for a menu."""
        return [_record(entry) for entry in self._refresh().values()]

    def entry(self, identifier: str) -> Entry:
        """An entry by its id. Raises Changed for one that is not here any more, UserError when its file cannot be
        read."""
        entry = self._refresh().get(identifier)
        if entry is None:
            raise Changed("this circuit changed, or others are served here now: reload the page")
        if entry.circuit is None:
            raise UserError(entry.problem or "the circuit cannot be read")
        return entry

    def live(self, identifier: str) -> "LiveCircuit":
        """A circuit with its model, loaded on first use. Raises UserError, each time the same, when the model
        is missing, damaged, or another one."""
        entry = self.entry(identifier)
        with self._lock:
            if not entry.tried:
                entry.tried = True
                try:
                    entry.live = self._load(entry)
                except UserError as error:
                    entry.problem = str(error)
        if entry.live is None:
            raise UserError(entry.problem or "the model cannot be loaded")
        return entry.live

    def warm(self, identifier: str) -> None:
        """Make a circuit that was opened ready for its first change (see `LiveCircuit.warm`), if its model is here."""
        with contextlib.suppress(UserError):  # the payload says why there is none
            self.live(identifier).warm()

    def payload(self, identifier: str, quick: bool = False) -> Payload:
        """What the page draws: with the model's activations; or what the file holds, with the reason in
        "problem" why not more. quick: what the file holds, without waiting for the model ("live" is None)."""
        if quick:
            payload = self._with_bridge(identifier, self._of_file(identifier).extended(live=None, id=identifier))
            return with_groups(payload, self.entry(identifier).path, self._circuit(identifier))
        try:
            payload = self.live(identifier).payload().extended(live=True)
        except UserError as error:
            payload = self._of_file(identifier).extended(live=False, problem=str(error))
        return self._with_files_beside(identifier, self._with_bridge(identifier, payload))

    def offline(self, identifier: str) -> Payload:
        """The payload of the one-file page: with all that can be shown without the model."""
        from sparsecircuits.viewer.offline import recorded

        try:
            payload = recorded(self.live(identifier))
        except UserError:
            payload = self._of_file(identifier)
        return self._with_files_beside(identifier, payload)

    def bridge_of(self, identifier: str) -> GivenBridge:
        """The bridge that was given with the circuits. Raises UserError where there is none, or where it is of another
        model than this circuit."""
        if self._bridge is None:
            raise UserError("no bridge was given: start the viewer with --bridge")
        self._bridge.require(self._circuit(identifier))
        return self._bridge

    def require_bridged(self) -> None:
        """Raise UserError where the bridge is of none of the circuits' models."""
        circuits = [entry.circuit for entry in self._refresh().values() if entry.circuit is not None]
        problems = [] if self._bridge is None else [self._bridge.problem_with(circuit) for circuit in circuits]
        if problems and None not in problems:
            raise UserError(f"{problems[0]}")

    def _with_bridge(self, identifier: str, payload: Payload) -> Payload:
        """With what can be steered from the circuit, where a bridge was given. An offline page has none: nothing could
        be steered there."""
        if self._bridge is None:
            return payload
        live = self.entry(identifier).live if payload.live else None
        model = None if live is None else live.model
        return payload.extended(steering=self._bridge.steerable(self._circuit(identifier), model, payload.problem))

    def _of_file(self, identifier: str) -> Payload:
        return file_payload(self._circuit(identifier))

    def _circuit(self, identifier: str) -> CircuitData:
        entry = self.entry(identifier)
        circuit = entry.live.circuit if entry.live else entry.circuit  # a published one says more with its model
        assert circuit is not None
        return circuit

    def _with_files_beside(self, identifier: str, payload: Payload) -> Payload:
        path, circuit = self.entry(identifier).path, self._circuit(identifier)
        return with_card(with_groups(payload.extended(id=identifier), path, circuit), path, circuit)

    def card(self, identifier: str) -> "CardData | None":
        """The faithfulness card beside the circuit (see `card_beside`)."""
        return card_beside(self.entry(identifier).path, self._circuit(identifier))

    def save_groups(self, identifier: str, groups: Groups) -> Path:
        """Write the names and groups beside the circuit (see `beside.save_groups`)."""
        return save_groups(self.entry(identifier).path, self._circuit(identifier), groups)

    def _load(self, entry: Entry) -> "LiveCircuit":
        from sparsecircuits.interop.loading import load_model
        from sparsecircuits.tasks import task_of_circuit
        from sparsecircuits.viewer.live import LiveCircuit

        bridged = None if self._bridge is None else self._bridge.sparse_path
        where = self._model_path or run_of(entry.path) or bridged
        if where is None:
            raise UserError("no model beside this circuit: the picture shows what its file holds")
        if where not in self._models:
            self._models[where] = (load_model(where), threading.RLock())
        model, lock = self._models[where]
        circuit = load_circuit(entry.path, model)
        return LiveCircuit(model, circuit, task_of_circuit(circuit.task, entry.path.parent, model.tokenizer), lock)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _run_name(path: Path) -> str:
    run = run_of(path)
    return run.name if run else path.parent.name


def _read(path: Path) -> Entry:
    """A circuit's file as it is now. The stamp is taken before: a change meanwhile is seen at the next request."""
    stamp, run = _stamp(path), _run_name(path)
    try:
        circuit = read_circuit(path)
    except UserError as error:
        return Entry(circuit_id(run, path.parent.name, content_of_file(path)), path, stamp, problem=str(error))
    return Entry(circuit_id(run, circuit.task, circuit.checksum()), path, stamp, circuit)


def _record(entry: Entry) -> CircuitRecord:
    circuit, run = entry.circuit, _run_name(entry.path)
    if circuit is None:
        return CircuitRecord(id=entry.id, run=run, problem=entry.problem, task=entry.path.parent.name)
    return CircuitRecord(
        id=entry.id,
        run=run,
        problem=None,
        model=circuit.model_name,
        model_id=circuit.model_id,
        task=circuit.task,
        n_nodes=len(circuit.nodes),
        n_edges=len(circuit.edges),
        loss=circuit.shown_losses.circuit,
    )
