"""The circuits that `view` is given: found on disk once, loaded when they are asked for."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.circuit_files import load_circuit, read_circuit
from sparsecircuits.interop.pretrained import require_own
from sparsecircuits.runs import card_path, groups_path, run_of
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.peek import file_payload
from sparsecircuits.viewer.schema import CircuitRecord, Payload

if TYPE_CHECKING:
    from sparsecircuits.faithfulness.card.schema import CardData
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.viewer.live import LiveCircuit


@dataclass
class Entry:
    """One circuit file. `problem` says why it cannot be read, or why its model cannot be used."""

    id: str
    path: Path
    circuit: CircuitData | None = field(default=None, repr=False)
    problem: str | None = None
    live: "LiveCircuit | None" = field(default=None, repr=False)
    tried: bool = False


class Library:
    """Circuits by short ids. The ids are made here: what a request names is looked up, never opened."""

    def __init__(self, paths: list[Path], model: Path | None = None) -> None:
        self._model_path = Path(model) if model else None
        self._models: dict[Path, tuple[SparseTransformer, threading.RLock]] = {}
        self._lock = threading.RLock()
        self.entries: dict[str, Entry] = {}
        for number, path in enumerate(paths):
            entry = Entry(str(number), path)
            try:
                entry.circuit = read_circuit(path)
            except UserError as error:
                entry.problem = str(error)
            self.entries[entry.id] = entry

    def list(self) -> list[CircuitRecord]:
        """One record per circuit, for a menu."""
        return [self._record(entry) for entry in self.entries.values()]

    def _record(self, entry: Entry) -> CircuitRecord:
        around, circuit = entry.path.parent.name, entry.circuit
        run = run_of(entry.path)
        name = run.name if run else around
        if circuit is None:
            return CircuitRecord(id=entry.id, run=name, problem=entry.problem, task=around)
        return CircuitRecord(
            id=entry.id,
            run=name,
            problem=None,
            model=circuit.model_name,
            model_id=circuit.model_id,
            task=circuit.task,
            n_nodes=len(circuit.nodes),
            n_edges=len(circuit.edges),
            loss=circuit.shown_losses.circuit,
        )

    def entry(self, identifier: str) -> Entry:
        """An entry by its id. Raises UserError for an unknown one, or when its file cannot be read."""
        entry = self.entries.get(identifier)
        if entry is None:
            raise UserError("there is no such circuit")
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
            return payload.extended(id=identifier, groups=self.groups(identifier))
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
            payload = payload.extended(details=live.details(), curve=live.curve())
        return self._with_files_beside(identifier, payload)

    def _of_file(self, identifier: str) -> Payload:
        circuit = self.entry(identifier).circuit
        assert circuit is not None
        return file_payload(circuit)

    def _with_files_beside(self, identifier: str, payload: Payload) -> Payload:
        """With the groups and the faithfulness card, or with the reason why the card is not shown."""
        payload = payload.extended(id=identifier, groups=self.groups(identifier))
        try:
            card = self.card(identifier)
        except UserError as error:
            return payload.extended(card=None, card_problem=str(error))
        return payload.extended(card=card and card.model_dump(mode="json"))

    def card(self, identifier: str) -> "CardData | None":
        """The faithfulness card beside the circuit; None where none was saved. Raises UserError where it is damaged, or
        another circuit's."""
        from sparsecircuits.faithfulness.card.schema import CardData

        entry = self.entry(identifier)
        assert entry.circuit is not None
        path = card_path(entry.path)
        if not path.is_file():
            return None
        card = CardData.load(path)
        card.check_circuit(entry.circuit)
        return card

    def groups(self, identifier: str) -> Groups:
        """Saved names and groups; empty where there are none, or where the file is damaged."""
        try:
            return Groups.load(groups_path(self.entry(identifier).path))
        except UserError:
            return Groups()

    def save_groups(self, identifier: str, groups: Groups) -> Path:
        """Write the sidecar file beside the circuit. Raises UserError for a circuit that ships with the package."""
        path = groups_path(self.entry(identifier).path)
        require_own(path)
        return groups.save(path)

    def _load(self, entry: Entry) -> "LiveCircuit":
        from sparsecircuits.interop.loading import load_model
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
