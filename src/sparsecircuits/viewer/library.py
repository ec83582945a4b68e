"""The circuits that `view` is given: found on disk once, loaded when they are asked for."""

import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.circuit_files import read_circuit
from sparsecircuits.interop.pretrained import require_own
from sparsecircuits.runs import card_path, groups_path, run_of
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.identity import circuit_id, content_of_file, copy_id
from sparsecircuits.viewer.peek import file_payload
from sparsecircuits.viewer.schema import CircuitRecord, Payload

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

    def __init__(self, paths: list[Path], model: Path | None = None) -> None:
        self._model_path = Path(model) if model else None
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

    def payload(self, identifier: str, quick: bool = False) -> Payload:
        """What the page draws: with the model's activations; or what the file holds, with the reason in
        "problem" why not more. quick: what the file holds, without waiting for the model ("live" is None)."""
        if quick:
            payload = self._of_file(identifier).extended(live=None)
            return self._with_groups(identifier, payload)
        try:
            payload = self.live(identifier).payload().extended(live=True)
        except UserError as error:
            payload = self._of_file(identifier).extended(live=False, problem=str(error))
        return self._with_files_beside(identifier, payload)

    def offline(self, identifier: str) -> Payload:
        """The payload of the one-file page: with every node's weights and examples, and the curve."""
        try:
            live = self.live(identifier)
            payload = live.payload()
        except UserError:
            payload = self._of_file(identifier)
        else:
            payload = payload.extended(details=live.details(), curve=live.curve(), words=live.words)
        return self._with_files_beside(identifier, payload)

    def _of_file(self, identifier: str) -> Payload:
        circuit = self.entry(identifier).circuit
        assert circuit is not None
        return file_payload(circuit)

    def _with_files_beside(self, identifier: str, payload: Payload) -> Payload:
        """With the groups and the faithfulness card, or with the reason why the card is not shown."""
        from sparsecircuits.viewer.words import node_words

        payload = self._with_groups(identifier, payload)
        try:
            card = self.card(identifier)
        except UserError as error:
            return payload.extended(card=None, card_problem=str(error))
        if card is None:
            return payload.extended(card=None)
        if card.descriptions:
            payload = payload.extended(words=node_words(card.descriptions))
        return payload.extended(card=card.model_dump(mode="json"))

    def _with_groups(self, identifier: str, payload: Payload) -> Payload:
        """With what a person named, or with the reason why that is not shown."""
        payload = payload.extended(id=identifier)
        try:
            return payload.extended(groups=self.groups(identifier))
        except UserError as error:
            return payload.extended(
                groups=Groups(), groups_problem=f"{error}. It is kept under another name when you save."
            )

    def card(self, identifier: str) -> "CardData | None":
        """The faithfulness card beside the circuit; None where none was saved. Raises UserError where it is damaged, or
        another circuit's."""
        from sparsecircuits.faithfulness.card.schema import CardData

        entry = self.entry(identifier)
        circuit = entry.live.circuit if entry.live else entry.circuit  # a published one says more with its model
        assert circuit is not None
        path = card_path(entry.path)
        if not path.is_file():
            return None
        card = CardData.load(path)
        card.check_circuit(circuit)
        return card

    def groups(self, identifier: str) -> Groups:
        """Saved names and groups; empty where there are none. Raises UserError where they are damaged, or another
        circuit's."""
        entry = self.entry(identifier)
        path = groups_path(entry.path)
        if not path.exists():
            return Groups()
        assert entry.circuit is not None
        groups = Groups.load(path)
        groups.check_circuit(entry.circuit, path)
        return groups

    def save_groups(self, identifier: str, groups: Groups) -> Path:
        """Write the sidecar file beside the circuit; one that is not this circuit's is kept under another name. Raises
        UserError for a circuit that ships with the package."""
        entry = self.entry(identifier)
        path = groups_path(entry.path)
        require_own(path)
        assert entry.circuit is not None
        try:
            self.groups(identifier)
        except UserError:
            path.rename(next(free for n in itertools.count(1) if not (free := path.with_suffix(f".{n}.json")).exists()))
        return groups.model_copy(update={"circuit": entry.circuit.checksum()}).save(path)

    def _load(self, entry: Entry) -> "LiveCircuit":
        from sparsecircuits.interop.loading import load_model
        from sparsecircuits.interop.published import load_circuit
        from sparsecircuits.tasks import task_of_circuit
        from sparsecircuits.viewer.live import LiveCircuit

        where = self._model_path or run_of(entry.path)
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
