"""What a faithfulness card holds. Version 3 of `report.json`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sparsecircuits.circuits.descriptions import Description
from sparsecircuits.circuits.schema import CircuitData, Losses
from sparsecircuits.errors import UserError
from sparsecircuits.faithfulness.measures.binarise import Binarised
from sparsecircuits.faithfulness.measures.constants import Constants
from sparsecircuits.faithfulness.measures.context import ConstantQuery, Tried
from sparsecircuits.faithfulness.measures.corpus import Transfer
from sparsecircuits.faithfulness.measures.interchange import Interchange, Scrubbing
from sparsecircuits.faithfulness.measures.likeness import Internals, Outputs
from sparsecircuits.faithfulness.measures.necessity import Completeness, Minimality, Necessity
from sparsecircuits.faithfulness.measures.said import Said
from sparsecircuits.faithfulness.measures.size_curve import SizeCurve
from sparsecircuits.faithfulness.measures.subsets import SubsetAblation
from sparsecircuits.faithfulness.measures.sufficiency import Sufficiency
from sparsecircuits.faithfulness.nulls import Nulls
from sparsecircuits.files import read_json
from sparsecircuits.pruning.backups import BackupRecord

LARGEST_FILE = 20_000_000  # bytes
Verdict = Literal[
    "distinguishable from null", "not distinguishable from null", "no circuit needed", "null controls not run"
]


class PromptLosses(BaseModel):
    """Losses in nats of every prompt, calibrated, from short pairs to long; rows 2i and 2i+1 are a pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    circuit: tuple[float, ...]
    full: tuple[float, ...]


class Shortcut(BaseModel):
    """The best rule that needs no understanding, on the card's split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    accuracy: float
    by_definition: bool
    """The task's last tokens are meant to decide."""


class CardData(BaseModel):
    """The card. Losses are binary cross-entropies in nats, by default on the held-out split; chance is ln 2. Whatever
    ran has a calibration from training pairs; `losses` and the prompts that were tried have raw losses too.

    What the quick version, or the full one, does not measure is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[3] = 3
    mode: Literal["quick", "full", "deep"]
    version: str
    """Of the program."""
    seed: int
    task: str
    model_name: str
    model_id: str
    circuit: str | None = None
    """Checksum of the circuit's content; cards of earlier versions lack it."""
    ablation: str
    n_nodes: int
    n_edges: int
    target_loss: float
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why, in plain words."""
    warnings: list[str]
    holds_target: bool
    losses: Losses
    sufficiency: float | None
    """Under the circuit's own ablation: (empty - circuit) / (empty - full); 1 is all of the task."""
    necessity: float | None
    """(ablated - full) / (ln 2 - full), at most 1: how far towards chance the model falls without the circuit."""
    random_ablated: float
    """Mean loss when as many random nodes of the same sites, outside the circuit, are frozen instead."""
    ablations: tuple[Sufficiency, ...]
    outputs: Outputs
    necessity_test: Necessity
    minimality: Minimality
    internals: Internals
    constants: Constants
    splits: tuple[Tried, ...]
    prompts: PromptLosses
    shortcut: Shortcut | None = None
    """What the circuit's accuracy is to be held against; None in cards that were made before it was measured."""
    answers: Said | None = None
    """Whether the whole model says the answers at all; None in cards that were made before it was measured."""
    completeness: Completeness | None = None
    interchange: Interchange | None = None
    scrubbing: Scrubbing | None = None
    curve: SizeCurve | None = None
    dilution_of: str | None = None
    dilution: tuple[Tried, ...] | None = None
    constant_queries: tuple[ConstantQuery, ...] | None = None
    binarised: Binarised | None = None
    descriptions: tuple[Description, ...] | None = None
    nulls: Nulls | None = None
    subsets: tuple[SubsetAblation, ...] | None = None
    backups: BackupRecord | None = None
    """Of the deep card, where the whole model holds the target."""
    transfer: Transfer | None = None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the JSON. Raises UserError when it is no card of this version."""
        raw = read_json(Path(path), "card", LARGEST_FILE)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise UserError(f"{path} is not a card of this version: run `sparsecircuits report` again") from error

    def check_circuit(self, circuit: CircuitData) -> None:
        """Raise UserError when the card was made of another circuit than the one it lies beside."""
        of = (circuit.model_id, circuit.task, circuit.ablation, len(circuit.nodes), len(circuit.edges))
        own = (self.model_id, self.task, self.ablation, self.n_nodes, self.n_edges)
        if of != own or self.circuit not in (None, circuit.checksum()):
            raise UserError("the card beside this circuit is another circuit's: run `sparsecircuits report` again")
