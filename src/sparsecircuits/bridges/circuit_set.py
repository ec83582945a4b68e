"""`CircuitSet`: for each prompt only the circuit that it needs runs, or the whole model where none fits."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.bridges.picking import FALL_BACK, Rule, SparseClassifier
from sparsecircuits.circuits.circuit import Bound, Circuit
from sparsecircuits.errors import UserError
from sparsecircuits.models.sites import FINAL_SITE, split_node
from sparsecircuits.models.transformer import SparseTransformer, count_parameters
from sparsecircuits.nodes.edges import edges_between
from sparsecircuits.nodes.task_loss import accuracy, all_candidate_logits, correct_of
from sparsecircuits.tasks import PairBatch, Task, get_task, list_tasks

LEARNED_FROM, ALSO_SEEN = "train", "validation"
PAIRS = 128


class DynamicRow(TypedDict):
    """A task's prompts in a mixed stream."""

    task: str
    has_circuit: bool
    prompts: int
    picked: float
    """Share of prompts for which its own circuit ran."""
    wrong: float
    """Share for which another one did."""
    fell_back: float
    """Share that the whole model answered."""
    accuracy: float
    accuracy_whole: float
    touched: float
    """Nonzero weights that a prompt touches, of those that it touches in the whole model (see `CircuitSet.touched`)."""
    touched_per_token: float
    """The same with each weight counted as often as it is used."""


class CircuitSet:
    """A model and circuits of it; everything outside the circuit that a prompt needs stays at its mean."""

    def __init__(
        self,
        model: SparseTransformer,
        circuits: Sequence[Circuit | str | Path],
        rule: Rule | None = None,
    ) -> None:
        """rule: says which circuit a prompt needs; by default one that is learned from the training prompts of the
        circuits' tasks, which must be shipped ones then, beside those of all other shipped tasks (`SparseClassifier`).
        Raises UserError for a circuit of another model, or two of one task."""
        loaded = [c if isinstance(c, Circuit) else Circuit.load(c) for c in circuits]
        if not loaded:
            raise UserError("name at least one circuit")
        tasks = [circuit.task for circuit in loaded]
        if len(set(tasks)) < len(tasks):
            raise UserError(f"two of the circuits are for one task: {', '.join(tasks)}")
        for circuit in loaded:
            circuit.check_model(model)
        self.model, self.tasks = model, tasks
        self.bound: list[Bound] = [circuit.on(model) for circuit in loaded]
        self.rule = rule or self._learned()
        self._touched = [_touched_by(bound) for bound in self.bound]

    def _learned(self) -> Rule:
        tasks = [get_task(name, self.model.tokenizer) for name in self.tasks]
        known, more = ([task.encode(task.draw(split, PAIRS)) for task in tasks] for split in (LEARNED_FROM, ALSO_SEEN))
        return SparseClassifier.learn(self.model, known, more, self._others())

    def _others(self) -> list[PairBatch]:
        """Training prompts of the tasks that no circuit is for, as far as the tokenizer can express them."""
        found = []
        for task in list_tasks():
            if task.name not in self.tasks:
                with contextlib.suppress(UserError):
                    bound = get_task(task.name, self.model.tokenizer)
                    found.append(bound.encode(bound.draw(LEARNED_FROM, PAIRS)))
        return found

    def pick(self, batch: PairBatch) -> Int[Tensor, " n"]:
        """Which circuit each prompt needs, by its place, or FALL_BACK."""
        return self.rule(self.model, batch)

    def answer_logits(self, batch: PairBatch, picks: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n 2"]:
        """Logits of the two answers after each prompt, each from the circuit that was picked for it: calibrated where
        the answers are those of the circuit's task. picks: by default those of the rule."""
        picks = self.pick(batch) if picks is None else picks
        found = torch.empty(len(batch.last), 2, device=self.model.device)
        for place in picks.unique().tolist():
            rows = (picks == place).nonzero().flatten().numpy()
            logits = self._logits(place, batch, rows)
            found[torch.from_numpy(rows).to(found.device)] = logits
        return found

    def _logits(self, place: int, batch: PairBatch, rows: np.ndarray) -> Float[Tensor, "n 2"]:
        # Chunks hold whole pairs; prompts that are picked one by one are padded to such.
        padded = np.concatenate([rows, rows[-1:]]) if len(rows) % 2 else rows
        part = batch.take(padded)
        gating = None if place == FALL_BACK else self.bound[place].alone
        logits = all_candidate_logits(self.model, part, gating)[: len(rows)]
        if place == FALL_BACK:
            return logits
        circuit = self.bound[place].circuit
        own = get_task(circuit.task, self.model.tokenizer).answer_ids if self.model.tokenizer else None
        return circuit.calibration(logits) if own == batch.answers else logits

    def touched(self, batch: PairBatch, picks: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """What each prompt costs here, as a share of what it costs the whole model: in nonzeros that are touched at
        all, and in nonzeros times the tokens that they are used for.

        Of the embedding a prompt touches its own tokens' rows. The rule's numbers count among the nonzeros; it is asked
        once a prompt, while weights are used at every token.
        """
        whole, before, found = _whole(self.model), _up_to(self.model, self.rule.boundary), []
        rows, rule = (self.model.wte.weight != 0).cpu(), self.rule.weights
        for row, pick in enumerate(picks.tolist()):
            tokens = batch.tokens[row, : batch.last[row] + 1]
            length, embedding = len(tokens), int(rows[torch.from_numpy(np.unique(tokens))].sum())
            everything = whole + embedding
            # The rule reads all channels of its tokens' rows; what it runs, the whole model runs anyway.
            inside = everything if pick == FALL_BACK else self._touched[pick] + embedding + before
            found.append([(inside + rule) / everything, (inside * length + rule) / (everything * length)])
        return torch.tensor(found)

    def measure(
        self, tasks: Sequence[Task], *, split: str = "held_out", n_pairs: int = 64, seed: int = 0
    ) -> list[DynamicRow]:
        """How this does on a stream of the prompts of some tasks, task by task. Each task counts alike."""
        rows: list[DynamicRow] = []
        for task in tasks:
            batch = task.batch(split, n_pairs, seed)
            picks, correct = self.pick(batch), correct_of(batch, self.model.device)
            own = self.tasks.index(task.name) if task.name in self.tasks else FALL_BACK
            fell_back = picks == FALL_BACK
            costs = self.touched(batch, picks).mean(dim=0).tolist()
            rows.append(
                {
                    "task": task.name,
                    "has_circuit": own != FALL_BACK,
                    "prompts": len(picks),
                    "picked": ((picks == own) & ~fell_back).float().mean().item(),
                    "wrong": ((picks != own) & ~fell_back).float().mean().item(),
                    "fell_back": fell_back.float().mean().item(),
                    "accuracy": accuracy(self.answer_logits(batch, picks), correct),
                    "accuracy_whole": accuracy(all_candidate_logits(self.model, batch), correct),
                    "touched": costs[0],
                    "touched_per_token": costs[1],
                }
            )
        return rows


def _whole(model: SparseTransformer) -> int:
    """Nonzeros of all sparse matrices but the embedding."""
    return count_parameters(model)[1] - int(model.wte.weight.count_nonzero())


def _up_to(model: SparseTransformer, boundary: int) -> int:
    """Nonzeros of the sublayers before a boundary."""
    total = 0
    for sublayer in range(boundary):
        block = model.block(sublayer // 2)
        part = block.attn if sublayer % 2 == 0 else block.mlp
        total += sum(int(p.count_nonzero()) for name, p in part.named_parameters() if name.endswith("weight"))
    return total


def _touched_by(bound: Bound) -> int:
    """Nonzeros between a circuit's nodes, and of the unembedding's columns that read them."""
    last = [channel for site, channel in map(split_node, bound.circuit.node_names) if site == FINAL_SITE]
    edges = len(edges_between(bound.model, bound.space, bound.kept)) - len(bound.removed)
    return edges + int(bound.model.lm_head.weight[:, last].count_nonzero())
