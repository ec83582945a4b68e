"""What is known of the circuits that do without one another, beside a circuit or on its card."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from sparsecircuits.errors import UserError
from sparsecircuits.faithfulness.card.schema import CardData
from sparsecircuits.pruning.backups import BackupRecord


def known_backups(card: CardData | None, nodes: Iterable[str], files: Iterable[Path]) -> BackupRecord | None:
    """The record on a circuit's card, or else in one of the files that `sparsecircuits backups` may have written. None
    where there is none with a circuit of these nodes; a damaged file counts as none."""
    if card is not None and card.backups is not None:
        return card.backups
    wanted = set(nodes)
    for file in filter(Path.is_file, files):
        with contextlib.suppress(UserError):
            record = BackupRecord.load(file)
            if any(set(way.nodes) == wanted for way in record.ways):
                return record
    return None
