"""What a claim is: the paper's words and figure, a measurement, and the rule of its verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.claims.schema import Judge, Row
from sparsecircuits.interop.circuit_files import circuit_files, load_circuit
from sparsecircuits.interop.loading import load_model
from sparsecircuits.interop.pretrained import folder_of, is_pretrained
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.runs import circuit_path, circuits_folder

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A model under measurement: a run directory, or pretrained:NAME."""

    name: str

    @cached_property
    def model(self) -> SparseTransformer:
        """The model, loaded once."""
        return load_model(self.name)

    @cached_property
    def content_hash(self) -> str:
        """Of its config and weights."""
        return content_hash(self.model)

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return folder_of(self.name) if is_pretrained(self.name) else Path(self.name)

    def circuits(self) -> list[Bound]:
        """The circuits that lie beside it, by task. Those without a node are left out: there the last token alone says
        the answer, by way of the bigram table."""
        found = [load_circuit(path, self.model) for path in circuit_files(self.folder)]
        return [circuit.on(self.model) for circuit in found if circuit.nodes]

    def circuit(self, task: str) -> Bound:
        """One of them. Raises UserError where it is not there."""
        return load_circuit(circuit_path(circuits_folder(self.folder), task), self.model).on(self.model)


@dataclass(frozen=True)
class Setting:
    """What a claim is measured with."""

    subjects: tuple[Subject, ...] = ()
    seed: int = 0
    seeds: int = 3
    """Of trainings, counted from `seed`."""
    scale: float = 1.0
    """Factor on prompts and steps of training; on steps of pruning, if above 1."""
    tell: Tell = field(default=lambda details: None)

    def scaled(self, n: int, least: int = 1) -> int:
        """A number of prompts or steps at this scale."""
        return max(least, round(n * self.scale))

    @property
    def all_seeds(self) -> range:
        """The seeds of trainings."""
        return range(self.seed, self.seed + self.seeds)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper (or a reviewer's question)."""

    name: str
    where: str
    """Where the paper makes it; "asked by reviewers" for what it does not say."""
    says: str
    """What it says, with its figure."""
    rule: str
    """The rule of the verdict in words, stated before measuring; `judge` is the same rule as code."""
    measure: Callable[[Setting], list[Row]]
    judge: Judge
    models: tuple[str, ...] = ()
    """Measured by default; none for claims that train their own."""
    minutes: float = 1.0
    """About how long it takes on one core at scale 1."""
    differs: str = ""
    """In what the measurement differs from the paper's."""
    version: int = 1

    @property
    def trains(self) -> bool:
        """Whether it trains models, over several seeds."""
        return not self.models
