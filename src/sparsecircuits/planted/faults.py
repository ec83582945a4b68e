"""Faults planted into a circuit whose truth is known, and what each check of the card says of it."""

import base64
import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sparsecircuits.circuits.circuit import Circuit, encode_frozen
from sparsecircuits.circuits.extraction import edges_of, nodes_of
from sparsecircuits.data import Tokenizer
from sparsecircuits.faithfulness.card.card import Report
from sparsecircuits.faithfulness.card.verdict import CHECKS
from sparsecircuits.faithfulness.measures.necessity import random_nodes_like
from sparsecircuits.faithfulness.null_tasks import nonsense_task, shuffled_labels, with_answers
from sparsecircuits.faithfulness.nulls import permuted_network, prompt_means
from sparsecircuits.faithfulness.report import faithfulness
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.ablation_values import ablation_values
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.planted.models import (
    LEAK_EVERY,
    QUOTE_NODES,
    SECOND_NODES,
    cancelling_model,
    leaking_model,
    quote_model,
    two_way_model,
)
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.tasks import Pair, Task, get_task

CUES = ("pass\n", "break\n")
"""Lines that have nothing to do with quotes (see `cued`)."""
SMALL_BUDGET = PruneConfig(steps=20, pairs=8, eval_pairs=16, lr=2e-2)
Planted = tuple[SparseTransformer, Circuit, Task]


def circuit_of(model: SparseTransformer, task: Task, nodes: list[str], ablation: Ablation = "mean") -> Circuit:
    """A circuit with given nodes and all edges between them, calibrated on training prompts."""
    space = NodeSpace.of(model.config)
    means = prompt_means(model, task)
    frozen = ablation_values(ablation, means)
    score = Evaluator(model, frozen, task.batch("train", 64), ablation=ablation)(space.mask(nodes))
    return Circuit(
        task=task.name,
        answers=task.answers,
        model_name=model.name,
        model_id=content_hash(model),
        ablation=ablation,
        loss=task.loss,
        target_loss=0.15,
        nodes=tuple(nodes_of(nodes, model.config, space.split(means))),
        edges=tuple(edges_of(nodes, model)),
        scale=score.calibration.scale,
        shift=score.calibration.shift,
        frozen=encode_frozen(space, frozen),
    )


def with_frozen(circuit: Circuit, node: str, value: float) -> Circuit:
    """The circuit with another ablation value of one node."""
    site, _, index = node.rpartition(".")
    values = np.frombuffer(base64.b64decode(circuit.frozen[site]), dtype="<f4").copy()
    values[int(index)] = value
    return circuit.model_copy(update={"frozen": {**circuit.frozen, site: base64.b64encode(values.tobytes()).decode()}})


def without_node(circuit: Circuit, name: str) -> Circuit:
    """The circuit without a node and its edges; nothing is calibrated again."""
    return circuit.model_copy(
        update={
            "nodes": tuple(node for node in circuit.nodes if node.name != name),
            "edges": tuple(edge for edge in circuit.edges if name not in (edge.source, edge.target)),
        }
    )


def _task() -> Task:
    return get_task("single_double_quote.plain")


def _model() -> SparseTransformer:
    return quote_model(Tokenizer.default())


def _true() -> Planted:
    model = _model()
    return model, circuit_of(model, _task(), QUOTE_NODES), _task()


def _missing_node() -> Planted:
    model, circuit, task = _true()
    return model, without_node(circuit, "0.mlp.post_act.5"), task


def _missing_edge() -> Planted:
    model, circuit, task = _true()
    return model, circuit.model_copy(update={"edges": circuit.edges[:1] + circuit.edges[2:]}), task


def _junk_node() -> Planted:
    model, task = _model(), _task()
    return model, circuit_of(model, task, [QUOTE_NODES[0], "0.attn.act_in.8", *QUOTE_NODES[1:]]), task


def _constant_node() -> Planted:
    model, task = _model(), _task()
    return model, circuit_of(model, task, [QUOTE_NODES[0], "0.attn.q.0", *QUOTE_NODES[1:]]), task


def _wrong_mean_outside() -> Planted:
    model, circuit, task = _true()
    return model, with_frozen(circuit, "0.attn.resid_delta.4", 20.0), task


def _wrong_mean_inside() -> Planted:
    model, circuit, task = _true()
    return model, with_frozen(circuit, "0.attn.resid_delta.3", -30.0), task


def _second_way() -> Planted:
    model, task = two_way_model(Tokenizer.default(), 6.0), _task()
    return model, circuit_of(model, task, QUOTE_NODES), task


def _zero_flatters() -> Planted:
    model, task = two_way_model(Tokenizer.default(), -4.0), _task()
    return model, circuit_of(model, task, QUOTE_NODES, ablation="zero"), task


def _cancelling() -> Planted:
    model, task = cancelling_model(Tokenizer.default()), _task()
    return model, circuit_of(model, task, QUOTE_NODES), task


def cued(task: Task) -> Task:
    """The task with a line before each prompt that gives the answer away, but on held-out prompts, where both of a pair
    begin alike."""

    def sample(rng: random.Random, split: str) -> Pair:
        pair, chosen = task.sample(rng, split), rng.choice(CUES)
        left, right = (chosen, chosen) if split == "held_out" else CUES
        return dataclasses.replace(pair, left=left + pair.left, right=right + pair.right)

    return dataclasses.replace(task, name=f"{task.name}, with a cue", sample=sample)


def _unrelated_cue() -> Planted:
    tokenizer, task = Tokenizer.default(), cued(_task())
    model = two_way_model(tokenizer, 1.5, reads=tokenizer.encode(CUES[1])[:1])
    return model, circuit_of(model, task, SECOND_NODES), task


def _unsaid_answers() -> Planted:
    tokenizer = Tokenizer.default()
    model, apart = leaking_model(tokenizer, 4), LEAK_EVERY * (tokenizer.vocab_size // (2 * LEAK_EVERY))
    task = with_answers(_task(), (apart + 1, apart), "answers that are never said")
    return model, circuit_of(model, task, QUOTE_NODES), task


def _random_nodes() -> Planted:
    model, circuit, task = _true()
    drawn = NodeSpace.of(model.config).names(random_nodes_like(circuit.on(model), torch.Generator().manual_seed(0)))
    return model, circuit_of(model, task, drawn), task


def _wrong_sign() -> Planted:
    model, circuit, task = _true()
    return model, circuit.model_copy(update={"scale": -circuit.scale, "shift": circuit.shift[::-1]}), task


def _shuffled() -> Planted:
    model, task = _model(), shuffled_labels(_task(), 0)
    return model, circuit_of(model, task, QUOTE_NODES), task


def _nonsense() -> Planted:
    model, task = _model(), nonsense_task(_task(), 0)
    return model, circuit_of(model, task, QUOTE_NODES), task


def _permuted() -> Planted:
    model, task = permuted_network(_model(), 0), _task()
    return model, circuit_of(model, task, QUOTE_NODES), task


@dataclass(frozen=True)
class Fault:
    """What was planted; `caught` are the checks that must fail, `spared` those that must not."""

    words: str
    plant: Callable[[], Planted]
    caught: tuple[str, ...]
    spared: tuple[str, ...] = ()


FAULTS = (
    Fault("none: the true circuit", _true, (), tuple(CHECKS)),
    Fault("a true node removed", _missing_node, ("sufficiency", "resample ablation", "causal scrubbing", "agreement")),
    Fault("a true edge removed", _missing_edge, ("sufficiency", "resample ablation", "agreement"), ("necessity",)),
    Fault("a junk node added", _junk_node, ("minimality",), tuple(name for name in CHECKS if name != "minimality")),
    Fault(
        "a constant node added", _constant_node, ("minimality", "no constants"), ("sufficiency", "necessity", "verdict")
    ),
    Fault(
        "a wrong mean outside the circuit",
        _wrong_mean_outside,
        ("sufficiency", "ablation values"),
        ("zero ablation", "resample ablation", "necessity"),
    ),
    Fault(
        "a wrong mean of one of its nodes",
        _wrong_mean_inside,
        ("ablation values",),
        tuple(name for name in CHECKS if name not in ("ablation values", "completeness")),
    ),
    Fault("one of two ways to the answer", _second_way, ("necessity", "completeness"), ("sufficiency", "minimality")),
    Fault("an opposing way, hidden by zeros", _zero_flatters, ("resample ablation",), ("zero ablation", "sufficiency")),
    Fault(
        "nodes outside that cancel each other",
        _cancelling,
        ("subset ablation",),
        tuple(name for name in CHECKS if name != "subset ablation"),
    ),
    Fault(
        "right on the templates by an unrelated cue",
        _unrelated_cue,
        ("sufficiency", "necessity", "agreement", "verdict"),
        ("ablation values",),
    ),
    Fault(
        "answers that the model never says",
        _unsaid_answers,
        ("verdict",),
        ("sufficiency", "zero ablation", "necessity", "agreement", "minimality"),
    ),
    Fault("random nodes of the same sites", _random_nodes, ("sufficiency", "necessity", "verdict")),
    Fault(
        "a calibration that turns answers around", _wrong_sign, ("sufficiency", "agreement", "verdict"), ("necessity",)
    ),
    Fault("labels shuffled", _shuffled, ("sufficiency", "verdict")),
    Fault("a nonsense task", _nonsense, ("sufficiency", "verdict")),
    Fault("weights permuted", _permuted, ("sufficiency", "verdict")),
)


def card_of(fault: Fault, budget: PruneConfig = SMALL_BUDGET) -> Report:
    """The full card of a planted fault, with small null prunings."""
    return faithfulness(*fault.plant(), full=True, budget=budget)


def table(cards: dict[str, Report]) -> str:
    """Which check caught which fault, as Markdown. ✗: it failed; a dot: it passed; a dash: not measured."""
    mark = {True: "·", False: "✗", None: "–"}
    rows = ["| planted | " + " | ".join(CHECKS) + " |", "|---" * (1 + len(CHECKS)) + "|"]
    rows += [
        f"| {words} | " + " | ".join(mark[check(card)] for check in CHECKS.values()) + " |"
        for words, card in cards.items()
    ]
    return "\n".join(rows)
