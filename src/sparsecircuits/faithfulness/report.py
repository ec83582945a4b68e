"""The faithfulness card of a circuit: every measure of docs/faithfulness.md, and a verdict in plain words.

Every number recomputes from model and circuit: all draws are by seed.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from sparsecircuits import __version__
from sparsecircuits.circuits.calibrations import Calibrations, Run, losses_of_runs
from sparsecircuits.circuits.circuit import Bound, Circuit, Losses
from sparsecircuits.circuits.descriptions import MOST_NODES, describe
from sparsecircuits.circuits.losses import REPORT_PAIRS, REPORT_SPLIT
from sparsecircuits.data.corpora import require_folder
from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.faithfulness.card import verdict
from sparsecircuits.faithfulness.card.card import Report
from sparsecircuits.faithfulness.card.schema import PromptLosses, Shortcut
from sparsecircuits.faithfulness.measures import context, interchange, likeness, necessity
from sparsecircuits.faithfulness.measures.binarise import binarise
from sparsecircuits.faithfulness.measures.constants import constants
from sparsecircuits.faithfulness.measures.corpus import transfer
from sparsecircuits.faithfulness.measures.estimate import estimate
from sparsecircuits.faithfulness.measures.runs import by_length, final_logits, first_pairs, losses_of
from sparsecircuits.faithfulness.measures.said import said
from sparsecircuits.faithfulness.measures.size_curve import size_curve
from sparsecircuits.faithfulness.measures.subsets import constants_of, subset_ablation
from sparsecircuits.faithfulness.measures.sufficiency import AblationName, ablations_of, share, sufficiency_under
from sparsecircuits.faithfulness.nulls import BUDGET, null_controls
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import training_pairs
from sparsecircuits.nodes.task_loss import pick_answers
from sparsecircuits.pruning.backups import BackupRecord, backups
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.pruning.many import save_circuit
from sparsecircuits.runs import card_path
from sparsecircuits.seeds import checked_seed
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.tasks.shortcuts import shortcuts_on

SMALL_PAIRS = 64
"""Pairs for the measures that run once per node, or oftener."""
SUBSET_PAIRS = 32
"""Pairs for the runs of random subsets, and as many training pairs to calibrate each."""
ASCENT_STEPS = 20
"""Of the adversary of the deep card, from each of its starts."""
PRUNING = PruneConfig()
"""Of the backup circuits of the deep card: as `prune` does by default."""

Tell = Callable[[float, str], None]


def faithfulness(
    model: SparseTransformer,
    circuit: Circuit,
    task: Task,
    *,
    full: bool = False,
    deep: bool = False,
    corpus: str | Path | None = None,
    seed: int = 0,
    budget: PruneConfig = BUDGET,
    pruning: PruneConfig = PRUNING,
    report: Tell | None = None,
) -> Report:
    """Measure a circuit on the held-out split.

    full: also knockouts, interchange interventions, causal scrubbing, subset ablation, the size curve, context tests,
    binarisation and the null controls (minutes). deep: all of that, an adversary that looks for the
    worst subset to ablate, and backup circuits (longer still). corpus: a folder of Python to try the circuit on.
    seed: of the prompts and of every draw. budget: of the prunings of the null controls. pruning: of those for
    backup circuits. report(share done, what is going on) many times.

    Raises UserError when the circuit belongs to another model, or the corpus has no place for the task.
    """
    checked_seed(seed)
    if corpus is not None:
        require_folder(corpus)
    circuit.check_model(model)
    circuit.check_task(task)
    bound = circuit.on(model)
    tell = report or (lambda share, details: None)
    pairs = task.draw(REPORT_SPLIT, REPORT_PAIRS, seed)
    if not pairs:
        raise UserError(f"task {task.name} has no {REPORT_SPLIT} pairs to measure on")
    encoded = task.encode(pairs)
    batch = by_length(encoded)
    small = first_pairs(batch, SMALL_PAIRS)
    tell(0.0, "the circuit alone")
    fair = Calibrations.of(bound, task)
    full = full or deep
    card = _quick(bound, task, batch, small, fair, full, seed, tell)
    if full:
        most = 0.5 if deep else 0.95
        part: Tell = lambda share, details: tell(most * share, details)  # noqa: E731
        card = _full(bound, task, small, fair, card, deep, seed, budget, part)
        card = _with(card, reasons=(*card.reasons, *verdict.reasons_of_subsets(card)))
    if deep and circuit.nodes and card.holds_target:
        shown: Tell = lambda share, details: tell(0.5 + 0.45 * share, details)  # noqa: E731
        card = _with(card, backups=_backups(bound, task, pruning, shown))
    if corpus is not None:
        tell(0.95, "real code")
        card = _with(card, transfer=transfer(bound, task, fair.full, corpus, seed=seed))
    card = _with(card, shortcut=_shortcut(task, encoded, seed))
    tell(1.0, card.verdict)
    return _with(card, warnings=verdict.warnings(card))


def save_with_card(model: SparseTransformer, task: Task, circuit: Circuit, folder: Path) -> Path:
    """Write <task>/circuit.json and, beside it, its quick card (see `pruning.many`). Returns the first's path."""
    path = save_circuit(model, task, circuit, folder)
    faithfulness(model, circuit, task).save(card_path(path))
    return path


def _with(card: Report, **more: object) -> Report:
    """The card with more that was measured; checked."""
    return Report.model_validate({**dict(card), **more})


def _quick(
    bound: Bound,
    task: Task,
    batch: PairBatch,
    small: PairBatch,
    fair: Calibrations,
    full: bool,
    seed: int,
    tell: Tell,
) -> Report:
    """What every card holds, but the shortcut and the warnings; the verdict is that without null controls."""
    model, circuit = bound.model, bound.circuit
    seen = fair.full(pick_answers(final_logits(model, small), small))
    everything, alone = final_logits(model, batch), final_logits(model, batch, bound.alone)
    nothing, rest = final_logits(model, batch, bound.nothing), final_logits(model, batch, bound.rest)
    raw: dict[Run, torch.Tensor] = {"circuit": alone, "full": everything, "empty": nothing, "ablated": rest}
    losses = losses_of_runs({n: pick_answers(x, batch) for n, x in raw.items()}, fair, batch, REPORT_SPLIT, seed)
    by_prompt = {n: losses_of(getattr(fair, n)(pick_answers(x, batch)), batch) for n, x in raw.items()}
    tell(0.03, "ablations")
    draws = 4 if full else 1
    ablations = [
        sufficiency_under(bound, small, seen, fair.empty, name, draws=draws, seed=seed)
        for name in ablations_of(circuit)
    ]
    tell(0.06, "necessity")
    learn = training_pairs(task, SMALL_PAIRS)
    needed = necessity.necessity(
        bound, small, learn, by_prompt["ablated"], by_prompt["full"], draws=10 if full else 5, seed=seed
    )
    enough = estimate(by_prompt["empty"], by_prompt["circuit"], by_prompt["full"], of=share, seed=seed)
    tell(0.1, "leaving out one at a time")
    gained = _gained(losses)
    minimal = necessity.minimality(bound, small, gained=gained, most=40 if full else 20, edges=full)
    tell(0.18, "nodes in words")
    described = tuple(describe(bound, task, seed=seed))
    tell(0.2, "attention and activations")
    answers = said(everything, batch)
    found, reasons = verdict.judge(circuit, losses, None, answers)
    return Report(
        mode="full" if full else "quick",
        version=__version__,
        seed=seed,
        task=circuit.task,
        model_name=circuit.model_name,
        model_id=circuit.model_id,
        circuit=circuit.checksum(),
        ablation=circuit.ablation,
        n_nodes=len(circuit.nodes),
        n_edges=len(circuit.edges),
        target_loss=circuit.target_loss,
        verdict=found,
        reasons=reasons,
        warnings=[],
        holds_target=losses.circuit <= circuit.target_loss,
        losses=losses,
        answers=answers,
        sufficiency=enough.value,
        necessity=needed.necessity.value,
        random_ablated=needed.random_mean,
        ablations=tuple(ablations),
        outputs=likeness.outputs(circuit, fair.full, batch, everything, alone, seed),
        necessity_test=needed,
        minimality=minimal,
        internals=likeness.internals(bound, small),
        constants=constants(bound, small),
        splits=tuple(context.splits(bound, task, fair.full, pairs=SMALL_PAIRS if full else 32, seed=seed)),
        descriptions=described,
        prompts=PromptLosses(circuit=tuple(by_prompt["circuit"].tolist()), full=tuple(by_prompt["full"].tolist())),
    )


def _backups(bound: Bound, task: Task, config: PruneConfig, tell: Tell) -> BackupRecord | None:
    """Backups of the circuit; None where the whole model misses its target, so that nothing can back it up."""
    circuit = bound.circuit
    config = dataclasses.replace(config, ablation=circuit.ablation)
    try:
        found = backups(
            bound.model,
            task,
            circuit.target_loss,
            config=config,
            means=bound.frozen,
            first=circuit,
            report=tell,
        )
    except TaskTooHard:
        return None
    return found.record


def _shortcut(task: Task, held_out: PairBatch, seed: int) -> Shortcut:
    found = shortcuts_on(task, held_out, seed, fitted=2 * REPORT_PAIRS)
    rule, accuracy = found.best
    return Shortcut(rule=rule, accuracy=accuracy, by_definition=found.by_definition)


def _gained(losses: Losses) -> float:
    """Nats between nothing and the circuit, both calibrated."""
    assert losses.empty_calibrated is not None  # of losses that are measured here; files of earlier versions lack it
    return max(0.0, losses.empty_calibrated - losses.circuit)


def _full(
    bound: Bound,
    task: Task,
    small: PairBatch,
    fair: Calibrations,
    card: Report,
    deep: bool,
    seed: int,
    budget: PruneConfig,
    tell: Tell,
) -> Report:
    """The card with what the full one has beside; the verdict is that with the null controls."""
    circuit, gained = bound.circuit, _gained(card.losses)
    answers = fair.full(pick_answers(final_logits(bound.model, small), small))
    tell(0.22, "knockouts")
    card = _with(card, completeness=necessity.completeness(bound, small, seed=seed))
    tell(0.26, "interchange interventions")
    card = _with(card, interchange=interchange.interchange(bound, fair.full, small, seed=seed))
    tell(0.3, "causal scrubbing")
    scrubbed = interchange.causal_scrubbing(bound, small, answers, fair.empty, draws=2, seed=seed)
    tell(0.32, "subset ablation")
    part, learn = first_pairs(small, SUBSET_PAIRS), training_pairs(task, SUBSET_PAIRS)
    kinds: tuple[AblationName, ...] = (constants_of(bound), "resample_random")
    steps = ASCENT_STEPS if deep else 0
    subsets = tuple(subset_ablation(bound, learn, part, kind, steps=steps, seed=seed) for kind in kinds)
    card = _with(card, mode="deep" if deep else "full", subsets=subsets)
    tell(0.36, "loss against size")
    card = _with(card, scrubbing=scrubbed, curve=size_curve(bound, small))
    tell(0.39, "longer prompts")
    diluted_with, rows = context.dilution(bound, task, fair.full, seed=seed)
    queries = context.constant_queries(bound, fair.full, small, gained=gained)
    card = _with(card, dilution_of=diluted_with, dilution=tuple(rows), constant_queries=tuple(queries))
    tell(0.42, "nodes in two values")
    if 0 < len(circuit.nodes) <= MOST_NODES:
        learn = task.encode(task.draw("train", SMALL_PAIRS, seed))
        card = _with(card, binarised=binarise(bound, learn, small, seed=seed))
    if verdict.needless(circuit, card.losses):  # a null cannot be smaller than nothing
        return card
    shown: Tell = lambda share, details: tell(0.45 + 0.55 * share, details)  # noqa: E731
    nulls = null_controls(bound, task, config=budget, seed=seed, report=shown)
    found, reasons = verdict.judge(circuit, card.losses, nulls, card.answers)
    return _with(card, nulls=nulls, verdict=found, reasons=reasons)
