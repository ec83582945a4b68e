"""Tasks that are none: what the null controls are pruned on.

Two of them no model does: shuffled labels, and the task in a cipher. That pruning finds nothing for them says only that
there is nothing. Two a model may well do: the task's own prompts, with two answers that the model never says there.
What a layer carries leaks into the logits of tokens that have nothing to do with it, so that they often tell the sides
of a pair apart, and pruning finds a circuit for it; but no training asked for it, and it explains nothing that the
model does.
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.faithfulness.measures.runs import final_logits
from sparsecircuits.faithfulness.measures.said import Answers, never_said
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import calibrate, fitted, training_pairs
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of, task_loss
from sparsecircuits.tasks import Pair, PairBatch, Task, get_task, list_tasks

CIPHERS = 200
"""Pairs of tokens among which the cipher's answers are chosen."""
CHECKED_PAIRS = 32
"""Validation pairs that say whether the whole model does a task; twice as many training pairs calibrate it."""
OTHERS = 3
"""Tasks, nearest first, that are tried for being done by the model."""


@dataclass(frozen=True)
class ChangedTask(Task):
    """A task that draws the pairs of another, and changes their tokens."""

    original: Task | None = None
    change: Callable[[PairBatch, list[Pair]], PairBatch] = lambda batch, pairs: batch

    @classmethod
    def of(cls, task: Task, name: str, change: Callable[[PairBatch, list[Pair]], PairBatch]) -> "ChangedTask":
        """A task with its batches changed; `name` is added to the task's."""
        return cls(
            name=f"{task.name}, {name}",
            description=task.description,
            answers=task.answers,
            sample=task.sample,
            tokenizer=task.tokenizer,
            original=task,
            loss=task.loss,
            change=change,
        )

    def draw(self, split: str, most: int, seed: int = 0) -> list[Pair]:
        """The original's pairs."""
        assert self.original is not None
        return self.original.draw(split, most, seed)

    def pairs(self, split: str = "train", n: int = 64, seed: int = 0) -> list[Pair]:
        """The original's pairs, all of them where it is a task of one's own that has fewer."""
        assert self.original is not None
        return self.original.pairs(split, n, seed)

    def encode(self, pairs: list[Pair]) -> PairBatch:
        """The original's tokens, changed."""
        assert self.original is not None
        return self.change(self.original.encode(pairs), pairs)


def shuffled_labels(task: Task, seed: int) -> Task:
    """The task with the two answers of each pair swapped by a coin: nothing in a prompt says which is right."""

    def change(batch: PairBatch, pairs: list[Pair]) -> PairBatch:
        heads = [zlib.crc32(f"{seed}/{pair.left}/{pair.right}".encode()) & 1 for pair in pairs]
        rows = np.arange(len(batch.last)) ^ np.repeat(np.array(heads), 2)
        # The prompts trade places and the answers stay: left is right, right is wrong, for half of the pairs.
        return dataclasses.replace(batch, tokens=batch.tokens[rows], last=batch.last[rows])

    return ChangedTask.of(task, "shuffled labels", change)


def nonsense_task(task: Task, seed: int) -> Task:
    """The task in a cipher: every token of its prompts, and both answers, replaced by another token, by one random
    permutation of the vocabulary. Lengths, contrasts and statistics are those of the task; the meaning is gone.
    """
    vocabulary = task.require_tokenizer().vocab_size
    cipher = np.random.default_rng([seed, 1]).permutation(vocabulary)

    def change(batch: PairBatch, pairs: list[Pair]) -> PairBatch:
        answers = (int(cipher[batch.answers[0]]), int(cipher[batch.answers[1]]))
        return dataclasses.replace(batch, tokens=cipher[batch.tokens], answers=answers)

    return ChangedTask.of(task, "nonsense", change)


def with_answers(task: Task, answers: Answers, name: str) -> Task:
    """The task's prompts, with other answers (token ids): the first is right on the left, the second on the right."""
    changed = ChangedTask.of(
        task, name, lambda batch, pairs: dataclasses.replace(batch, answers=answers, over_class=False)
    )
    return dataclasses.replace(changed, loss="pair")


@dataclass(frozen=True)
class Unsaid:
    """A task's training prompts and what a model says there; finds answers that it never says, and tells apart."""

    model: SparseTransformer
    task: Task
    batch: PairBatch
    logits: Float[Tensor, "n vocab"]
    tokens: Int[np.ndarray, " tokens"]
    """That are never said."""

    @classmethod
    def of(cls, model: SparseTransformer, task: Task) -> "Unsaid":
        """Run the model on training prompts."""
        batch = training_pairs(task)
        logits = final_logits(model, batch)
        return cls(model, task, batch, logits, never_said(logits.softmax(dim=1), batch.answers))

    def loss(self, answers: Answers) -> float:
        """The whole model's, calibrated, in nats on the training prompts."""
        picked, correct = self.logits[:, list(answers)], correct_of(self.batch, self.logits.device)
        return task_loss(calibrate(picked, correct)(picked), correct).item()

    def cipher(self, seed: int) -> Task | None:
        """Both answers in a cipher that the model can read: of many pairs of tokens that it never says, the pair that
        tells the sides apart best. None where it says all of its vocabulary."""
        if len(self.tokens) < 2:
            return None
        rng = np.random.default_rng([seed, 2])
        drawn = (rng.choice(self.tokens, 2, replace=False) for _ in range(CIPHERS))
        best = min(((int(a), int(b)) for a, b in drawn), key=self.loss)
        return with_answers(self.task, best, "answers in a cipher")

    def of_another_task(self, target_loss: float) -> Task | None:
        """The answers of another shipped task, which the model does (to a loss in nats) but never says here, in the
        order that suits the prompts better: those that tell the sides apart best. None where there are no such."""
        for _, answers, other in sorted(self._others(), key=lambda found: found[0])[:OTHERS]:
            with contextlib.suppress(UserError):  # its prompts may be too long for this model
                if loss_of_model(self.model, other) <= target_loss:
                    return with_answers(self.task, answers, f"answers of {other.name}")
        return None

    def _others(self) -> Iterator[tuple[float, Answers, Task]]:
        for unbound in list_tasks():
            try:
                other = get_task(unbound.name, self.task.tokenizer)
            except UserError:  # this tokenizer cuts its answers up
                continue
            a, b = other.answer_ids
            if np.isin([a, b], self.tokens).all() and other.loss == "pair":
                yield min((self.loss(answers), answers, other) for answers in ((a, b), (b, a)))


def loss_of_model(model: SparseTransformer, task: Task) -> float:
    """The whole model's loss in nats on validation prompts, calibrated on training prompts as all is."""
    batch = task.encode(task.draw("validation", CHECKED_PAIRS))
    logits = fitted(model, training_pairs(task, 2 * CHECKED_PAIRS))(all_candidate_logits(model, batch))
    return task_loss(logits, correct_of(batch, model.device)).item()
