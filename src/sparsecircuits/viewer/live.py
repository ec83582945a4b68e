"""A circuit with its model at hand: what the page asks for while a person touches it."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch

from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.continuing import continued
from sparsecircuits.circuits.descriptions import describe as describe_nodes
from sparsecircuits.circuits.intervention import Intervention, Scope
from sparsecircuits.circuits.run_with import Kept, Outcome, run_with
from sparsecircuits.circuits.sizes import loss_at_size, nodes_by_importance, shown_sizes
from sparsecircuits.data import Tokenizer
from sparsecircuits.data.excerpt import excerpt
from sparsecircuits.errors import UserError
from sparsecircuits.models.names import split_node
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import Calibration
from sparsecircuits.nodes.evaluator import Evaluator
from sparsecircuits.nodes.task_loss import correct_of, pick_answers, task_loss
from sparsecircuits.tasks import PairBatch, Task
from sparsecircuits.viewer.examples import describe, read_text, tokens_read
from sparsecircuits.viewer.payload import (
    MOST_RECORDED,
    head_patterns,
    node_rows,
    picture_payload,
    shown_pairs,
)
from sparsecircuits.viewer.requests import RunRequest
from sparsecircuits.viewer.schema import (
    Continuation,
    Continued,
    Curve,
    CurvePoint,
    HeadPatterns,
    NodeDetails,
    NodeWords,
    OnText,
    Payload,
    Reading,
    RunLoss,
    RunPrompt,
    RunResult,
    TopToken,
)
from sparsecircuits.viewer.weights import node_weights
from sparsecircuits.viewer.words import node_words

LOSS_PAIRS, LOSS_BATCHES, CURVE_PAIRS = 24, 2, 24
TOP_TOKENS, NEW_TOKENS = 5, 12
KEPT_RUNS = 8  # sets of prompts whose donors are kept
SCOPES: tuple[Scope, ...] = ("model", "circuit")


class LiveCircuit:
    """Model, circuit and task together. Methods may be called from several threads: forward hooks belong to
    one pass at a time, so a lock is held for each."""

    def __init__(self, model: SparseTransformer, circuit: Circuit, task: Task, lock: threading.RLock) -> None:
        circuit.check_model(model)
        self.model, self.circuit, self.task, self.lock = model, circuit, task, lock
        self.bound = circuit.on(model)
        self.space, self._frozen = self.bound.space, self.bound.frozen
        self._losses: dict[tuple[Scope, int | None, tuple[Intervention, ...], int], float] = {}
        # Of the last pair or prompt, without changes.
        self._before_of: tuple[int, str | None] | None = None
        self._before: dict[Scope, Outcome] = {}
        self._kept: dict[Hashable, Kept] = {}
        self._warm = False
        self._text_lock = threading.Lock()
        self._text: dict[str, OnText] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the task is bound to."""
        assert self.task.tokenizer is not None
        return self.task.tokenizer

    @cached_property
    def shown(self) -> PairBatch:
        """The pairs that the page shows."""
        return shown_pairs(self.task)

    @cached_property
    def loss_batches(self) -> list[PairBatch]:
        """Held-out pairs for the loss beside an intervention, in batches of similar length: little is padding,
        and "resample" draws from prompts of similar length. A task of one's own may have few."""
        pairs = sorted(self.task.draw("held_out", LOSS_PAIRS, 0), key=lambda pair: len(pair.left))
        size = math.ceil(len(pairs) / LOSS_BATCHES)
        return [self.task.encode(pairs[start : start + size]) for start in range(0, len(pairs), size)]

    @property
    def _n_prompts(self) -> int:
        return sum(len(part.last) for part in self.loss_batches)

    @cached_property
    def size_batch(self) -> PairBatch:
        """Validation pairs that the calibration of a part of the circuit is chosen on."""
        return self.task.encode(self.task.draw("validation", CURVE_PAIRS, 0))

    @cached_property
    def _on_size_batch(self) -> Evaluator:
        return self.bound.evaluator(self.size_batch)

    def payload(self) -> Payload:
        """What the picture shows (see `picture_payload`)."""
        with self.lock:
            return picture_payload(self.model, self.circuit, self.task)

    # ------------------------------------------------------------------ touch

    def warm(self) -> None:
        """Have at hand what the first change would wait for: kernels, and what holds without a change, in both scopes.
        Once; does nothing for a circuit that cannot be changed."""
        if self._warm:
            return
        self._warm = True
        change = tuple(Intervention(kind="mean", target=name) for name in self.circuit.node_names[:1])
        with contextlib.suppress(UserError):  # who makes the change is told
            for scope in SCOPES:
                request = RunRequest(scope=scope, interventions=change)
                self.run(request)
                self.loss(request)

    def run(self, request: RunRequest) -> RunResult:
        """Logits of both answers before and after the interventions, the most likely next tokens, activations and
        patterns. Raises UserError for a prompt or a target that does not fit."""
        began = time.perf_counter()
        batch, patch = self._prompts(request)
        nodes, calibration = self._at_size(request)
        ran = partial(run_with, self.model, self.bound, batch, patch=patch, seed=request.seed)
        untouched = self.circuit.calibration if request.scope == "circuit" else Calibration()
        with self.lock:
            before = self._untouched(request, request.scope, ran)
            beside = [self._untouched(request, scope, ran) for scope in SCOPES if request.prompt is not None]
            after = ran(
                request.interventions,
                scope=request.scope,
                nodes=nodes,
                pool=self._donors(request, batch),
                watch=self._watched(request),
                kept=self._kept_of(request.model_copy(update={"interventions": (), "watch": (), "heads": ()})),
            )
        lengths = (batch.last + 1).tolist()

        def logits(outcome: Outcome, row: int, calibration: Calibration) -> list[float]:
            found: list[float] = calibration(pick_answers(outcome.logits[row : row + 1], batch))[0].tolist()
            return found

        def prompt(row: int, length: int) -> RunPrompt:
            found = RunPrompt(
                tokens=[self.tokenizer.token(t) for t in batch.tokens[row, :length].tolist()],
                answer=None if request.prompt is not None else int(batch.correct[row]),
                before=Reading(logits=logits(before, row, untouched), top=self._top(before, row)),
                after=Reading(logits=logits(after, row, calibration), top=self._top(after, row)),
            )
            if not beside:
                return found
            full, alone = (
                logits(o, row, c) for o, c in zip(beside, (Calibration(), self.circuit.calibration), strict=True)
            )
            return found.extended(full=full, circuit=alone)

        return RunResult(
            prompts=[prompt(row, length) for row, length in enumerate(lengths)],
            activations={name: node_rows(after.activations, name, lengths) for name in self._recorded_names(request)},
            attention=[
                HeadPatterns(layer=la, head=h, patterns=head_patterns(self.model, after.activations, la, h, lengths))
                for la, h in request.heads
            ],
            n_kept=len(nodes) if nodes is not None else len(self.circuit.nodes),
            scope=request.scope,
            ms=round(1000 * (time.perf_counter() - began), 1),
        )

    def loss(self, request: RunRequest) -> RunLoss:
        """The loss over the task, without the changes and with them."""
        nodes, calibration = self._at_size(request)
        untouched = self.circuit.calibration if request.scope == "circuit" else Calibration()
        return RunLoss(
            before=self._loss(request.scope, None, untouched, (), request.seed),
            after=self._loss(request.scope, nodes, calibration, request.interventions, request.seed),
            n_prompts=self._n_prompts,
            split="held-out",
        )

    def continued(self, request: RunRequest) -> Continued:
        """How the prompts go on, without the changes and with them."""
        batch, patch = self._prompts(request)
        nodes, _ = self._at_size(request)
        go_on = partial(
            continued, self.bound, batch, tokens=NEW_TOKENS, stop=self.tokenizer.eot_id, scope=request.scope,
            patch=patch, pool=self._donors(request, batch), seed=request.seed, lock=lambda: self.lock,
        )  # fmt: skip
        before, after = go_on(), go_on(request.interventions, nodes=nodes)
        return Continued(
            prompts=[
                Continuation(before=self.texts(old), after=self.texts(new))
                for old, new in zip(before, after, strict=True)
            ]
        )

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text; a model's vocabulary may be larger than its tokenizer's."""
        known = self.tokenizer.vocab_size
        return [self.tokenizer.token(i) if i < known else f"#{i}" for i in ids]

    def _kept_of(self, prompts: Hashable) -> Kept:
        """What the donors of some prompts do, as far as it was asked for; of the last few."""
        if prompts not in self._kept and len(self._kept) >= KEPT_RUNS:
            del self._kept[next(iter(self._kept))]
        return self._kept.setdefault(prompts, {})

    def _untouched(self, request: RunRequest, scope: Scope, ran: Callable[..., Outcome]) -> Outcome:
        """The prompts without any change, in the whole model or in the whole circuit."""
        of = (request.pair, request.prompt)
        if self._before_of != of:
            self._before_of = of
            self._before.clear()
        if scope not in self._before:
            self._before[scope] = ran((), scope=scope)
        return self._before[scope]

    def _donors(self, request: RunRequest, batch: PairBatch) -> PairBatch | None:
        """Where "resample" draws from: prompts of the task that are not the shown ones, for on a pair alone it would be
        "patch". None, for the pair itself, where a task has no others."""
        pool = self.loss_batches[0]
        if request.prompt is not None:
            return pool
        shown = {tuple(row[: last + 1]) for row, last in zip(batch.tokens.tolist(), batch.last.tolist(), strict=True)}
        rows = zip(pool.tokens.tolist(), pool.last.tolist(), strict=True)
        others = [place for place, (row, last) in enumerate(rows) if tuple(row[: last + 1]) not in shown]
        return pool.take(np.array(others)) if others else None

    def _at_size(self, request: RunRequest) -> tuple[list[str] | None, Calibration]:
        if request.scope == "model":
            return None, Calibration()
        return self._largest(len(self.circuit.nodes) if request.size is None else request.size)

    def _largest(self, size: int) -> tuple[list[str] | None, Calibration]:
        """The most important nodes and their calibration; None for all."""
        if size >= len(self.circuit.nodes):
            return None, self.circuit.calibration
        with self.lock:
            score = loss_at_size(self.bound, self._on_size_batch, self.order, size)
        return self.order[:size], score.calibration

    def shown_pair(self, number: int) -> PairBatch:
        """One of the pairs that the page shows. Raises UserError where there are fewer."""
        if 2 * number >= len(self.shown.last):
            raise UserError(f"there are {len(self.shown.last) // 2} pairs")
        return self.shown.rows(2 * number, 2 * number + 2)

    def typed_pair(self, left: str, right: str) -> PairBatch:
        """Two prompts of one's own as a pair. Raises UserError for an empty one, or one that does not fit."""
        rows = [self._encoded(text) for text in (left, right)]
        tokens = np.zeros((2, max(row.tokens.shape[1] for row in rows)), dtype=np.int64)
        for place, row in enumerate(rows):
            tokens[place, : row.tokens.shape[1]] = row.tokens[0]
        last = np.concatenate([row.last for row in rows])
        return replace(rows[0], tokens=tokens, last=last, correct=np.array([0, 1]))

    def _prompts(self, request: RunRequest) -> tuple[PairBatch, PairBatch | None]:
        if request.prompt is None:
            return self.shown_pair(request.pair), None
        batch = self._encoded(request.prompt)
        if request.patch_prompt:
            return batch, self._encoded(request.patch_prompt)
        if any(change.kind == "patch" for change in request.interventions):
            raise UserError("to patch, give a second prompt to take the values from")
        return batch, None

    def _encoded(self, text: str) -> PairBatch:
        ids, most = self.tokenizer.encode(text), self.model.config.n_ctx
        if not ids:
            raise UserError("the prompt is empty")
        if len(ids) > most:
            raise UserError(f"the prompt has {len(ids)} tokens, the model reads {most}: shorten it")
        return PairBatch(
            np.array([ids]), np.array([len(ids) - 1]), np.array([0]), self.task.answer_ids, self.task.loss == "class"
        )

    def _loss(
        self,
        scope: Scope,
        nodes: list[str] | None,
        calibration: Calibration,
        changes: tuple[Intervention, ...],
        seed: int,
    ) -> float:
        """Loss over the task; nodes: the most important ones, None for all."""
        key = (scope, None if nodes is None else len(nodes), changes, seed)
        if key not in self._losses:
            if len(self._losses) > 2000:
                self._losses.clear()
            logits, correct = [], []
            for number, batch in enumerate(self.loss_batches):
                with self.lock:  # between two, another request has its turn
                    outcome = run_with(
                        self.model, self.bound, batch, changes,
                        scope=scope, nodes=nodes, seed=seed, kept=self._kept_of(("loss", number, seed, scope, key[1])),
                    )  # fmt: skip
                logits.append(calibration(pick_answers(outcome.logits, batch)))
                correct.append(correct_of(batch, outcome.logits.device))
            self._losses[key] = task_loss(torch.cat(logits), torch.cat(correct)).item()
        return self._losses[key]

    def _top(self, outcome: Outcome, row: int) -> list[TopToken]:
        chances, ids = outcome.logits[row].softmax(dim=-1).topk(TOP_TOKENS)
        return [TopToken(token=t, p=p) for t, p in zip(self.texts(ids.tolist()), chances.tolist(), strict=True)]

    def _recorded_names(self, request: RunRequest) -> list[str]:
        kept = self.circuit.node_names if len(self.circuit.nodes) <= MOST_RECORDED else []
        return list(dict.fromkeys((*kept, *request.watch)))

    def _watched(self, request: RunRequest) -> set[str]:
        self.space.mask(list(request.watch))
        for layer, head in request.heads:
            if not (0 <= layer < self.model.config.n_layer and 0 <= head < self.model.config.heads):
                raise UserError(f"the model has no head {head} in layer {layer}")
        sites = {split_node(name)[0] for name in self._recorded_names(request)}
        return sites | {f"{layer}.attn.{site}" for layer, _ in request.heads for site in "qk"}

    # ------------------------------------------------------------------ size

    @cached_property
    def order(self) -> list[str]:
        """Node names, the most important first."""
        with self.lock:
            return nodes_by_importance(self.bound, self.size_batch)

    @cached_property
    def _curve(self) -> Curve:
        """On the prompts, and with the calibrations, that `run` has at each size: the same numbers."""
        points = []
        for size in shown_sizes(len(self.circuit.nodes)):
            nodes, calibration = self._largest(size)
            points.append(CurvePoint(size=size, loss=self._loss("circuit", nodes, calibration, (), 0)))
        return Curve(order=self.order, points=points, split="held-out", n_prompts=self._n_prompts)

    def curve(self) -> Curve:
        """Loss vs size of the nested circuits."""
        return self._curve

    # ------------------------------------------------------------------ one node

    def node(self, name: str) -> NodeDetails:
        """Every weight of a node, and what it does on pretraining text; any node of the model."""
        self.space.mask([name])
        with self.lock:
            weights = node_weights(self.model, name)
        mean = self._mean(name)
        try:
            return NodeDetails(name=name, mean=mean, weights=weights, text=self._on_text(name))
        except UserError as error:
            return NodeDetails(name=name, mean=mean, weights=weights, text=None, text_problem=str(error))

    @cached_property
    def words(self) -> list[NodeWords]:
        """What the nodes fire on; of a large circuit, the first ones. Takes seconds."""
        return node_words(describe_nodes(self.bound, self.task, lock=lambda: self.lock))

    def details(self) -> dict[str, NodeDetails]:
        """`node` of every node in the circuit: what an offline page keeps."""
        return {name: self.node(name) for name in self.circuit.node_names[:MOST_RECORDED]}

    def _mean(self, name: str) -> float:
        return self._frozen[self.space.mask([name])].item()

    def _on_text(self, name: str) -> OnText:
        with self._text_lock:
            if name not in self._text:
                tokens = pretraining_text(self.model)
                kept = self.circuit.node_names
                names = kept if name in kept and len(kept) <= MOST_RECORDED else [name]
                ids, values = read_text(self.model, tokens, names, lambda: self.lock)
                for each in names:
                    self._text[each] = describe(ids, values[each], self.tokenizer)
            return self._text[name]


def pretraining_text(model: SparseTransformer) -> np.ndarray:
    """Tokens of held-out text of the corpus that a model was trained on, as many as are read. Raises UserError where it
    is unknown or cannot be read."""
    if model.corpus is None:
        raise UserError("the model does not say what text it was trained on")
    return excerpt(model.corpus, model.tokenizer or Tokenizer.default(), tokens_read(model))
