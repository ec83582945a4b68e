"""What a task is: a generator of prompt pairs by split and seed, and their token batches."""

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.seeds import checked_seed

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

# Templates and names are disjoint between these: find circuits on the first, choose between settings on
# the second, report on the third.
SPLITS = ("train", "validation", "held_out")


@dataclass(frozen=True)
class Pair:
    """Two prompts; the right next token is the task's first answer on the left, the second on the right.

    left_rest, right_rest: what may follow the answer so that prompt + answer + rest parses as Python.
    """

    left: str
    right: str
    left_rest: str = ""
    right_rest: str = ""

    @property
    def prompts(self) -> tuple[str, str]:
        """Both prompts, left first."""
        return self.left, self.right


@dataclass(frozen=True)
class PairBatch:
    """N pairs as tokens: rows 2i (left) and 2i+1 (right).

    tokens: int64 [2N, T], padded on the right with 0; last: position of each prompt's last token [2N];
    correct: 0 or 1, which answer is right [2N]; answers: the two answers' token ids; over_class: the second answer
    is every token but the first (see `Task.loss`).
    """

    tokens: np.ndarray
    last: np.ndarray
    correct: np.ndarray
    answers: tuple[int, int]
    over_class: bool = False

    @property
    def real(self) -> np.ndarray:
        """Which positions hold a prompt's tokens, and no padding: bool [2N, T]."""
        found: np.ndarray = np.arange(self.tokens.shape[1])[None] <= self.last[:, None]
        return found

    def rows(self, start: int, stop: int) -> "PairBatch":
        """Prompts start..stop, without padding that they do not need."""
        last = self.last[start:stop]
        width = int(last.max()) + 1
        tokens, correct = self.tokens[start:stop, :width], self.correct[start:stop]
        return dataclasses.replace(self, tokens=tokens, last=last, correct=correct)

    def take(self, rows: np.ndarray) -> "PairBatch":
        """Prompts by their row, in the order given; the padding stays."""
        tokens, last, correct = self.tokens[rows], self.last[rows], self.correct[rows]
        return dataclasses.replace(self, tokens=tokens, last=last, correct=correct)


@dataclass(frozen=True)
class Task:
    """A binary next-token task. `pairs` needs no tokenizer; `batch` does (see `get_task`)."""

    name: str
    description: str
    answers: tuple[str, str]
    sample: Callable[[random.Random, str], Pair]
    """Draw one pair of a split from a generator."""
    tokenizer: "Tokenizer | None" = None
    loss: Literal["pair", "class"] = field(default="pair", kw_only=True)
    """pair: cross-entropy between the two answers. class: where the second answer is anything but the first, whose
    probability over the whole vocabulary is p: -log p where the first is right, -log(1 - p) where it is not, as the
    released code scores such tasks. The second answer then names one token of the class, which stands behind the
    right prompts."""

    def bind(self, tokenizer: "Tokenizer") -> "Task":
        """This task with a tokenizer. Raises UserError when an answer is not one of its tokens."""
        for answer in self.answers:
            try:
                tokenizer.single_token(answer)
            except UserError as error:
                raise UserError(f"task {self.name} cannot run with this tokenizer: {error}") from error
        return dataclasses.replace(self, tokenizer=tokenizer)

    @property
    def answer_ids(self) -> tuple[int, int]:
        """Token ids of the two answers."""
        tokenizer = self.require_tokenizer()
        return tokenizer.single_token(self.answers[0]), tokenizer.single_token(self.answers[1])

    def pairs(self, split: str = "train", n: int = 64, seed: int = 0) -> list[Pair]:
        """n different pairs of a split, the same for the same seed.

        Raises UserError for an unknown split, or when the split has fewer than n different pairs.
        """
        if split not in SPLITS:
            raise UserError(no_such("no split", split, SPLITS))
        checked_seed(seed)
        if n < 1:
            raise UserError(f"n must be at least 1, got {n}")
        found = self.draw(split, n, seed)
        if len(found) < n:
            raise UserError(f"task {self.name} has only {len(found)} different pairs in split {split}, not {n}")
        return found

    def draw(self, split: str, most: int, seed: int = 0) -> list[Pair]:
        """Up to `most` different pairs of a split; fewer where many draws bring no new one."""
        rng = random.Random(f"{self.name}/{split}/{seed}")
        found: dict[Pair, None] = {}
        for _ in range(50 * most + 1000):
            found.setdefault(self.sample(rng, split))
            if len(found) == most:
                break
        return list(found)

    def batch(self, split: str = "train", n: int = 64, seed: int = 0) -> PairBatch:
        """n pairs as tokens. Raises UserError where the tokenizer merges an answer with its surroundings."""
        return self.encode(self.pairs(split, n, seed))

    def encode(self, pairs: list[Pair]) -> PairBatch:
        """Pairs as tokens, checking that the right answer is the very next token of each prompt."""
        tokenizer, answers = self.require_tokenizer(), self.answer_ids
        prompts = [prompt for pair in pairs for prompt in pair.prompts]
        whole = [
            prompt + self.answers[side] + rest
            for pair in pairs
            for side, (prompt, rest) in enumerate(zip(pair.prompts, (pair.left_rest, pair.right_rest), strict=True))
        ]
        ids, whole_ids = tokenizer.encode_batch(prompts), tokenizer.encode_batch(whole)
        for row, (short, full) in enumerate(zip(ids, whole_ids, strict=True)):
            if full[: len(short) + 1] != [*short, answers[row % 2]]:
                raise UserError(
                    f"task {self.name}: after {prompts[row]!r} the token {self.answers[row % 2]!r} does not "
                    "stand alone in this tokenizer"
                )
        last = np.array([len(row) - 1 for row in ids])
        tokens = np.zeros((len(ids), int(last.max()) + 1), dtype=np.int64)
        for row, row_ids in enumerate(ids):
            tokens[row, : len(row_ids)] = row_ids
        return PairBatch(tokens, last, np.tile([0, 1], len(pairs)), answers, self.loss == "class")

    def require_tokenizer(self) -> "Tokenizer":
        """The tokenizer. Raises UserError when the task is not bound to one."""
        if self.tokenizer is None:
            raise UserError(f"task {self.name} is not bound to a tokenizer: use get_task")
        return self.tokenizer
