"""The bridge that `view` is given: what it says at once, and curves of steering once its models are loaded. Free of
torch until something is steered."""

import threading
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecircuits.bridges.record import SPARSE_NAME, joined_boundaries, read_record
from sparsecircuits.circuits.schema import CircuitData
from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded
from sparsecircuits.viewer.requests import SteerRequest
from sparsecircuits.viewer.schema import Steerable, SteeringControls, SteeringCurves

if TYPE_CHECKING:
    from sparsecircuits.bridges.bridge import Bridge
    from sparsecircuits.bridges.steering import NodeSteering, Reference
    from sparsecircuits.models.transformer import SparseTransformer
    from sparsecircuits.tasks import PairBatch
    from sparsecircuits.viewer.live import LiveCircuit

STRENGTHS = tuple(round((step / 10) ** 2, 2) for step in range(11))
"""The slider's positions, closer where little is added: that is where answers turn (Gao et al. 2025, Figure 9)."""
MEAN_PAIRS, DRAWS = 16, 3
"""Held-out pairs of the mean, and draws of each control."""
KEPT = 100
"""How many node sets and prompts are remembered."""


class Asked:
    """One request: what is steered, and what came of it so far."""

    def __init__(self, steering: "NodeSteering", more: dict[str, object]) -> None:
        self.steering, self.more = steering, more
        self.curves: SteeringCurves | None = None
        self.controls: SteeringControls | None = None


class GivenBridge:
    """A bridge by its folder. Methods may be called from several threads: hooks belong to one pass at a time, so a lock
    is held while something is steered.

    Raises UserError for a folder that holds no bridge.
    """

    def __init__(self, path: Path, dense: Path | None = None) -> None:
        self.path = expanded(path)
        self._record, self._dense = read_record(self.path), dense
        self._lock = threading.Lock()
        self._bridge: Bridge | UserError | None = None
        self._references: dict[str, Reference] = {}
        self._asked: dict[Hashable, Asked] = {}

    @property
    def sparse_path(self) -> Path:
        """The sparse model's run directory."""
        return self.path / SPARSE_NAME

    def problem_with(self, circuit: CircuitData) -> str | None:
        """Why nothing can be steered from a circuit: it is another model's. None where it is the sparse model's."""
        expected: str = self._record["sparse_id"]
        if circuit.model_id == expected:
            return None
        return (
            f"{self.path} joins another sparse model ({expected[:12]}…) than the circuit's ({circuit.model_id[:12]}…), "
            f"and nothing is steered: prune {self.sparse_path}, or make the bridge with --sparse-lr 0"
        )

    def require(self, circuit: CircuitData) -> None:
        """Raise UserError for a circuit of another model."""
        problem = self.problem_with(circuit)
        if problem is not None:
            raise UserError(problem)

    def steerable(self, circuit: CircuitData, model: "SparseTransformer | None", problem: str | None) -> Steerable:
        """What the page may steer from a circuit. model: its own, where it is loaded; problem: why it is not."""
        found = Steerable(bridge=self.path.name, dense=Path(self._record["dense"]).name)
        problem = self.problem_with(circuit) or problem
        if problem is not None:
            return found.extended(problem=problem)
        if model is None:
            return found
        from sparsecircuits.bridges.directions import stream_reads

        names = [node.name for node in circuit.nodes]
        return found.extended(nodes=stream_reads(model, names, joined_boundaries(self._record)))

    def steer(self, live: "LiveCircuit", request: SteerRequest) -> SteeringCurves:
        """The curves of a request, computed once. Raises UserError for a bridge that is another model's or cannot be
        loaded, a node that is no read of the residual stream, and prompts that do not fit."""
        with self._lock:
            asked = self._asked_for(live, request)
            if asked.curves is None:
                asked.curves = SteeringCurves.model_validate({**asked.steering.curves(STRENGTHS), **asked.more})
            return asked.curves

    def controls(self, live: "LiveCircuit", request: SteerRequest) -> SteeringControls:
        """The controls of a request, which take twice as long. Raises UserError as `steer` does, and where there are
        too few other nodes."""
        with self._lock:
            asked = self._asked_for(live, request)
            if asked.controls is None:
                asked.controls = SteeringControls(**asked.steering.controls(STRENGTHS, DRAWS))
            return asked.controls

    def _asked_for(self, live: "LiveCircuit", request: SteerRequest) -> Asked:
        self.require(live.circuit)
        key = (live.circuit.checksum(), live.task.name, request)
        if key not in self._asked:
            if len(self._asked) >= KEPT:
                del self._asked[next(iter(self._asked))]
            self._asked[key] = self._steered(live, request)
        return self._asked[key]

    def _loaded(self) -> "Bridge":
        """The bridge and its models, loaded once; what fails, fails the same each time."""
        from sparsecircuits.bridges.storage import load_bridge

        if self._bridge is None:
            try:
                self._bridge = load_bridge(self.path, self._dense)
            except UserError as error:
                self._bridge = error
        if isinstance(self._bridge, UserError):
            raise self._bridge
        return self._bridge

    def _steered(self, live: "LiveCircuit", request: SteerRequest) -> Asked:
        from sparsecircuits.bridges.directions import stream_reads
        from sparsecircuits.bridges.steering import NodeSteering, Reference

        bridge, task = self._loaded(), live.task
        own = stream_reads(bridge.sparse, live.circuit.node_names, bridge.joined.sparse)
        nodes = list(request.nodes) or own
        if not nodes:
            raise UserError("the circuit reads the residual stream nowhere: there is nothing to steer from")
        pairs, split = _pairs(live, request)
        if pairs.tokens.shape[1] > bridge.n_ctx:
            raise UserError(f"the prompts have up to {pairs.tokens.shape[1]} tokens, both models read {bridge.n_ctx}")
        if task.name not in self._references:
            self._references[task.name] = Reference.of(bridge, task)
        reference = self._references[task.name]
        steering = NodeSteering(bridge, task, nodes, pairs, reference, toward=request.toward, split=split)
        shown = {} if request.over == "task" else _texts(live, pairs, request.toward)
        return Asked(steering, {"over": request.over, **shown})


def _pairs(live: "LiveCircuit", request: SteerRequest) -> tuple["PairBatch", str]:
    """The pairs that a request means, and what is said of them. Of a typed pair the prompt is what is steered,
    whichever answer is wanted."""
    if request.over == "task":
        return live.task.encode(live.task.draw("held_out", MEAN_PAIRS, 0)), "held_out"
    if request.prompt is None:
        return live.shown_pair(request.pair), "held_out"
    if not request.patch_prompt:
        raise UserError("to steer your prompt, give a second one: the difference between the two is what is added")
    prompts = (request.prompt, request.patch_prompt)
    return live.typed_pair(*(prompts if request.toward == "right" else prompts[::-1])), "typed"


def _texts(live: "LiveCircuit", pairs: "PairBatch", toward: str) -> dict[str, list[str]]:
    """The tokens of the prompt that is steered, and of its counterpart."""
    rows = [live.texts(row[: last + 1]) for row, last in zip(pairs.tokens.tolist(), pairs.last, strict=True)]
    steered, other = rows if toward == "right" else rows[::-1]
    return {"prompt": steered, "counterpart": other}
