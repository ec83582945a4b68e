"""What lies beside a circuit's file: its faithfulness card, and the names and groups that a person gave."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.interop.pretrained import require_own
from sparsecircuits.runs import backups_paths, card_path, groups_path
from sparsecircuits.viewer.card import shown_card
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.schema import Backups, Payload

if TYPE_CHECKING:
    from sparsecircuits.faithfulness.card.schema import CardData


def card_beside(path: Path, circuit: CircuitData) -> "CardData | None":
    """The card of the circuit at `path`; None where none was saved. Raises UserError where it is damaged, or another
    circuit's."""
    from sparsecircuits.faithfulness.card.schema import CardData

    if not card_path(path).is_file():
        return None
    card = CardData.load(card_path(path))
    card.check_circuit(circuit)
    return card


def groups_beside(path: Path, circuit: CircuitData) -> Groups:
    """Saved names and groups; empty where there are none. Raises UserError where they are damaged, or another
    circuit's."""
    sidecar = groups_path(path)
    if not sidecar.exists():
        return Groups()
    groups = Groups.load(sidecar)
    groups.check_circuit(circuit, sidecar)
    return groups


def save_groups(path: Path, circuit: CircuitData, groups: Groups) -> Path:
    """Write the sidecar; one that is not this circuit's is kept under another name. Raises UserError for a circuit
    that ships with the package."""
    sidecar = groups_path(path)
    require_own(sidecar)
    try:
        groups_beside(path, circuit)
    except UserError:
        numbered = (sidecar.with_suffix(f".{number}.json") for number in itertools.count(1))
        sidecar.rename(next(free for free in numbered if not free.exists()))
    return groups.model_copy(update={"circuit": circuit.checksum()}).save(sidecar)


def with_groups(payload: Payload, path: Path, circuit: CircuitData) -> Payload:
    """With what a person named, or with the reason why that is not shown."""
    try:
        return payload.extended(groups=groups_beside(path, circuit))
    except UserError as error:
        return payload.extended(
            groups=Groups(), groups_problem=f"{error}. It is kept under another name when you save."
        )


def with_card(payload: Payload, path: Path, circuit: CircuitData) -> Payload:
    """With the card and what it says of the nodes, or with the reason why it is not shown; and with what is known of
    the task's other circuits."""
    from sparsecircuits.faithfulness.card.backups import known_backups
    from sparsecircuits.viewer.words import node_words

    try:
        card = card_beside(path, circuit)
    except UserError as error:
        return payload.extended(card=None, card_problem=str(error))
    record = known_backups(card, circuit.node_names, backups_paths(path))
    if record is not None:
        ways = [list(way.nodes) for way in record.ways]
        payload = payload.extended(backups=Backups(words=record.words, core=list(record.core), ways=ways))
    if card is None:
        return payload.extended(card=None)
    if card.descriptions:
        payload = payload.extended(words=node_words(card.descriptions))
    return payload.extended(card=shown_card(card))
