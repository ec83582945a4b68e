"""What decides a task without understanding it: the best rules on single tokens, on the last ones, on bags of tokens.

A task that such a rule solves says nothing about what a circuit does: any mechanism that the rule describes passes.
"""

import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from sparsecircuits.tasks.base import PairBatch, Task

TRAIN_PAIRS = 1000
SCORED_PAIRS = 512
PENALTIES = (1e-4, 1e-2, 1.0)
"""Ridge penalties of the logistic regression; the best counts, as anyone may choose."""
NEWTON_STEPS = 12
LAST_TOKENS = ("else_elif", "while_return_true", "while_true_colon", "lambda_func")
"""Tasks whose definition is a shortcut: the last tokens say the answer."""
BESIDE = (*LAST_TOKENS, "class_init", "enumerate_range", "for_while", "if_equals", "var_if", "indent_for")
"""Tasks whose cue stands beside the answer by definition: the last tokens decide, the rest of the prompt does not."""


@dataclass(frozen=True)
class Shortcuts:
    """Accuracies of rules on a task's held-out prompts; 0.5 is chance.

    token: presence of one token anywhere (`by_token`: which); count: one token at least so many times; last: the last
    1, 2, 3 tokens; bag: a logistic regression on the counts of all tokens. The first two are the best on the very
    prompts they are scored on, an upper bound; the others are fitted on training prompts, or on one half of the
    held-out ones and scored on the other, whichever is better. by_definition: the last tokens are meant to decide.
    """

    name: str
    pairs: int
    token: float
    by_token: str
    count: float
    last: tuple[float, float, float]
    bag: float
    by_definition: bool

    @property
    def best(self) -> tuple[str, float]:
        """The best rule and its accuracy."""
        rules = {f"presence of {self.by_token!r}": self.token, "a count of one token": self.count}
        rules |= {f"the last {n} token{'s' if n > 1 else ''}": value for n, value in enumerate(self.last, 1)}
        rules["a bag of tokens"] = self.bag
        return max(rules.items(), key=lambda item: item[1])

    def record(self) -> dict[str, object]:
        """All fields, and the best rule, for JSON."""
        rule, accuracy = self.best
        return {**dataclasses.asdict(self), "best_rule": rule, "best": accuracy}


def shortcuts(task: Task, pairs: int = SCORED_PAIRS, seed: int = 0, fitted: int = TRAIN_PAIRS) -> Shortcuts:
    """Measure the rules on up to `pairs` held-out pairs, with up to `fitted` training pairs to fit on; deterministic.

    Raises UserError when the task is not bound to a tokenizer, or cannot be expressed in it.
    """
    return shortcuts_on(task, task.encode(task.draw("held_out", pairs, seed)), seed, fitted)


def shortcuts_on(task: Task, held_out: PairBatch, seed: int = 0, fitted: int = TRAIN_PAIRS) -> Shortcuts:
    """The same on held-out prompts that are encoded already."""
    tokenizer = task.require_tokenizer()
    train = task.encode(task.draw("train", fitted, seed))
    counts = token_counts(held_out, tokenizer.vocab_size)
    present, token = best_threshold(counts, held_out.correct, most=1)
    return Shortcuts(
        name=task.name,
        pairs=len(held_out.last) // 2,
        token=present,
        by_token=tokenizer.token(token),
        count=best_threshold(counts, held_out.correct, most=int(counts.max()))[0],
        last=(last_tokens(train, held_out, 1), last_tokens(train, held_out, 2), last_tokens(train, held_out, 3)),
        bag=bag_of_tokens(train, held_out, tokenizer.vocab_size),
        by_definition=task.name in LAST_TOKENS,
    )


def mean_of(found: list[Shortcuts]) -> dict[str, float]:
    """The mean of the best rules' accuracies over all tasks, and over those that no definition gives away."""
    open_tasks = [s.best[1] for s in found if not s.by_definition]
    means = {"all_tasks": float(np.mean([s.best[1] for s in found]))}
    return means | ({"without_those_by_definition": float(np.mean(open_tasks))} if open_tasks else {})


def token_counts(batch: PairBatch, vocab_size: int) -> np.ndarray:
    """How often each token stands in each prompt [2N, vocabulary]."""
    counts = np.zeros((len(batch.last), vocab_size), dtype=np.int32)
    for row, (tokens, last) in enumerate(zip(batch.tokens, batch.last, strict=True)):
        np.add.at(counts[row], tokens[: last + 1], 1)
    return counts


def best_threshold(counts: np.ndarray, correct: np.ndarray, most: int) -> tuple[float, int]:
    """The best accuracy of "this token at least k times", k from 1 to `most`, either way round; and the token."""
    best, token = 0.5, 0
    for k in range(1, most + 1):
        agreement = ((counts >= k) == correct[:, None]).mean(axis=0)
        accuracy = np.maximum(agreement, 1 - agreement)
        if accuracy.max() > best:
            best, token = float(accuracy.max()), int(accuracy.argmax())
    return best, token


def last_tokens(train: PairBatch, held_out: PairBatch, n: int) -> float:
    """Accuracy of answering as most prompts with the same last n tokens were; half a point for unknown ones."""
    return max(_last_rule(fit, test, n) for fit, test in _folds(train, held_out))


def _last_rule(fits: list[PairBatch], tests: list[PairBatch], n: int) -> float:
    points = []
    for fit, test in zip(fits, tests, strict=True):
        seen: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for key, side in zip(_endings(fit, n), fit.correct, strict=True):
            seen[key][int(side)] += 1
        for key, side in zip(_endings(test, n), test.correct, strict=True):
            votes = seen[key] if key in seen else Counter()
            points.append(0.5 if votes[0] == votes[1] else float(votes[int(side)] > votes[1 - int(side)]))
    return float(np.mean(points))


def _endings(batch: PairBatch, n: int) -> list[tuple[int, ...]]:
    return [
        tuple(row[max(0, last + 1 - n) : last + 1].tolist()) for row, last in zip(batch.tokens, batch.last, strict=True)
    ]


def _folds(train: PairBatch, held_out: PairBatch) -> list[tuple[list[PairBatch], list[PairBatch]]]:
    """(what to fit on, what to score on): training prompts then held-out ones; each half of the latter on the other."""
    pairs = len(held_out.last) // 2
    found = [([train], [held_out])]
    if pairs > 1:
        rows = np.arange(2 * pairs)
        halves = [held_out.take(rows[: pairs // 2 * 2]), held_out.take(rows[pairs // 2 * 2 :])]
        found.append((halves, halves[::-1]))
    return found


def bag_of_tokens(train: PairBatch, held_out: PairBatch, vocab_size: int) -> float:
    """Accuracy of logistic regression on counts of tokens, the best of some penalties."""
    scores = []
    for fits, tests in _folds(train, held_out):
        counted = [
            (token_counts(fit, vocab_size), fit.correct, token_counts(test, vocab_size), test.correct)
            for fit, test in zip(fits, tests, strict=True)
        ]
        for penalty in PENALTIES:
            right = [_logistic(*parts, penalty) for parts in counted]
            scores.append(float(np.concatenate(right).mean()))
    return max(scores)


def _logistic(x: np.ndarray, y: np.ndarray, test: np.ndarray, test_y: np.ndarray, penalty: float) -> np.ndarray:
    """Which test rows a ridge-penalised logistic regression gets right; half where it cannot tell. Newton's method, in
    the space of the rows where these are fewer than the tokens that occur."""
    used = x.any(axis=0)
    features, test_features = (np.c_[part[:, used], np.ones(len(part))].astype(np.float64) for part in (x, test))
    mean = features[:, :-1].mean(axis=0)
    features[:, :-1] -= mean
    test_features[:, :-1] -= mean
    ridge = penalty * len(y) * np.eye(features.shape[1])
    weights = np.zeros(features.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        slope = features.T @ (chance - y) + ridge @ weights
        spread = np.maximum(chance * (1 - chance), 1e-4)
        step = np.linalg.solve(features.T @ (features * spread[:, None]) + ridge, slope)
        weights -= step
        if np.abs(step).max() < 1e-4:
            break
    margin = test_features @ weights
    return np.where(np.abs(margin) < 1e-9, 0.5, (margin > 0) == test_y)
