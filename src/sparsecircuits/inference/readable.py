"""A circuit decompiled: what its one attention layer does, as a person would have written it.

Tokens speak for one answer or the other, and a head weighs what they say. From prompts one learns which tokens speak,
how loudly, and how much of the head's attention each gets; then the simplest of some forms that decides as the circuit
does is taken: whether a word is there, who is in the majority, a weighted average. What it agrees on with the exact
program is measured on held-out prompts.
"""

import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.descriptions import activations
from sparsecircuits.errors import UserError
from sparsecircuits.inference.program import check_exportable
from sparsecircuits.inference.program_text import WIDTH
from sparsecircuits.kernels.rms_norm import EPSILON
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.plans.contests import running_heads
from sparsecircuits.plans.plan import Plan
from sparsecircuits.tasks import PairBatch, Task

CHOSEN_ON = (("train", "validation"), 192)
"""Splits that a form is chosen on, for the words and templates of both, and pairs of each."""
TEST = 384  # held-out pairs
ENOUGH = 0.96
"""Share of the learning prompts on which a form must decide as the circuit does."""
LEAST = 0.95
"""The same on held-out prompts, below which nothing is written."""
SHARES = (0.75, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Of the loudest token's voice: what counts as a voice at all (the paper's thresholds of features, and lower ones)."""


@dataclass(frozen=True)
class Sets:
    """Named sets of tokens, or tables by token, as they stand in a program: name, what it is, the tokens, and a number
    for each where one is needed."""

    name: str
    words: str
    tokens: tuple[int, ...]
    numbers: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Form:
    """A way to decide. score(tokens [n, T], real [n, T]) is positive where the first answer is to be given; lines are
    the same in Python."""

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    lines: tuple[str, ...]
    sets: tuple[Sets, ...]
    again: "Callable[[tuple[int, ...], tuple[int, ...]], Form] | None" = None
    """The same form with other tokens for the first and for the second answer."""


@dataclass(frozen=True)
class Readable:
    """A readable program and how often it gives the answer that the exact one gives, and the right one, on held-out
    prompts."""

    text: str
    agreement: float
    accuracy: float
    exact_accuracy: float
    prompts: int


@dataclass(frozen=True)
class _Seen:
    """What a circuit does on some prompts. votes: what each token's values say, first answer against second, [n, T];
    pull: the logarithm of each token's attention against the sink [n, T]; decides: first less second [n]."""

    batch: PairBatch
    votes: np.ndarray
    pull: np.ndarray
    decides: np.ndarray


def write_readable(bound: Bound, task: Task, title: str) -> Readable:
    """The simplest program that decides as the circuit does. Raises UserError where the circuit is more than one layer
    of attention, or where none is found that agrees on 95% of held-out prompts."""
    check_exportable(bound)
    plan = bound.plan
    head = _only_head(plan)
    draws = [
        [pair for split in splits for pair in task.draw(split, n, 0)]
        for splits, n in (CHOSEN_ON, (("held_out",), TEST))
    ]
    learn, test = (_watch(bound, plan, head, task.encode(pairs)) for pairs in draws)
    best: tuple[float, Form] | None = None
    for form in _forms(learn, task.answers):
        agreement = _agreement(form, learn)
        if best is None or agreement > best[0] + 1e-9:
            best = agreement, form
        if agreement >= ENOUGH:
            break
    assert best is not None
    form = _lean(best[1], learn)
    agreement = _agreement(form, test)
    if agreement < LEAST:
        raise UserError(
            f"no readable program found: the best one gives the exact program's answer on {agreement:.1%} of held-out "
            f"prompts, fewer than {LEAST:.0%}"
        )
    score = form.score(test.batch.tokens, test.batch.real)
    right = test.batch.correct == 0
    found = Readable(
        "", agreement, float(((score > 0) == right).mean()), float(((test.decides > 0) == right).mean()), len(right)
    )
    return Readable(_text(title, task, form, found, head), agreement, found.accuracy, found.exact_accuracy, len(right))


def _only_head(plan: Plan) -> int:
    """The layer-0 head that is all there is."""
    layers = range(plan.config.n_layer)
    later = [
        site
        for layer in layers
        for site in ([f"{layer}.attn.resid_delta"] if layer else []) + [f"{layer}.mlp.resid_delta"]
        if len(plan.varying[site])
    ]
    if plan.config.offsets is not None:
        raise UserError("no readable program is written for a model with offsets yet: export it without --readable")
    heads = running_heads(plan, 0)
    if later or len(heads) != 1 or not len(plan.varying["0.attn.v"]):
        raise UserError(
            "a readable program is written for circuits of one head in layer 0; this one has "
            f"{len(heads)} there{', and nodes in ' + ', '.join(later) if later else ''}: export it without --readable"
        )
    return heads[0]


def _watch(bound: Bound, plan: Plan, head: int, batch: PairBatch) -> _Seen:
    seen = activations(bound, batch, alone=True)
    size, first = plan.config.d_head, head * plan.config.d_head
    channels = range(first, first + size)

    def channel(name: str, c: int) -> np.ndarray:
        kept = seen.get(f"0.attn.{name}.{c}")
        frozen = np.full(batch.tokens.shape, float(plan.frozen[f"0.attn.{name}"][c]))
        return frozen if kept is None else kept

    rows = np.arange(len(batch.last))
    scores = sum(channel("q", c)[rows, batch.last][:, None] * channel("k", c) for c in channels) / np.sqrt(size)
    sinks = plan.vector("blocks.0.attn.sink_logit")
    # Without a sink, what counts is how tokens compare to the middle one of their prompt.
    pull = scores - (np.nanmedian(scores, axis=1, keepdims=True) if sinks is None else float(sinks[head]))
    logits = all_candidate_logits(bound.model, batch, bound.alone)
    calibrated = bound.circuit.calibration(logits).double().numpy()
    gains = _towards_first(plan, bound, batch, seen)
    votes = sum(seen[f"0.attn.v.{c}"] * gain for c, gain in gains.items())
    assert isinstance(votes, np.ndarray)
    return _Seen(batch, votes, pull, calibrated[:, 0] - calibrated[:, 1])


def _towards_first(plan: Plan, bound: Bound, batch: PairBatch, seen: Mapping[str, np.ndarray]) -> dict[int, float]:
    """How much each value channel speaks for the first answer: its writes' weights in the answers' logits, at the
    stream's mean scale."""
    config, product = plan.config, plan.products["0.attn.resid_delta"]
    kept = plan.varying["final_resid"]
    frozen = plan.frozen["final_resid"].astype(np.float64).copy()
    frozen[kept] = 0
    rows = np.arange(len(batch.last))
    squares = frozen @ frozen + sum(seen[f"final_resid.{c}"][rows, batch.last] ** 2 for c in kept)
    scale = float(np.mean(1 / np.sqrt(squares / config.d_model + EPSILON)))
    gains, dense = plan.vector("ln_f.weight"), np.zeros((2, config.d_model))
    assert gains is not None
    for place, answer in enumerate(batch.answers):
        here = plan.unembedding.rows == answer
        dense[place, plan.unembedding.columns[here]] = plan.unembedding.values[here]
    readable = np.zeros(config.d_model)
    read = np.intersect1d(kept, plan.varying["0.attn.resid_delta"])
    readable[read] = (dense[0] - dense[1])[read] * gains[read] * scale * bound.circuit.scale
    matrix = np.zeros(product.matrix.shape)
    matrix[product.matrix.rows, product.matrix.columns] = product.matrix.values
    return dict(zip(product.columns.tolist(), (readable[product.rows] @ matrix).tolist(), strict=True))


def _by_token(seen: _Seen, values: np.ndarray) -> dict[int, float]:
    """The mean of something over a token's places."""
    real = seen.batch.real
    tokens, places = np.unique(seen.batch.tokens[real], return_inverse=True)
    sums, counts = np.bincount(places, weights=values[real]), np.bincount(places)
    return dict(zip(tokens.tolist(), (sums / counts).tolist(), strict=True))


@dataclass(frozen=True)
class _Tokens:
    """What tokens do, by id: their votes, and their pull (the logarithm of attention) at the first place, to which each
    further place adds `slope`. usual, typical: of most tokens. sink: how many typical tokens it is worth."""

    votes: dict[int, float]
    pulls: dict[int, float]
    slope: float
    usual: float
    typical: float
    sink: float

    @classmethod
    def of(cls, seen: _Seen) -> "_Tokens":
        real = seen.batch.real
        tokens, place = seen.batch.tokens, np.broadcast_to(np.arange(real.shape[1]), real.shape).astype(float)
        middle, mean = _by_token(seen, place), _by_token(seen, seen.pull)
        x = (place - _look_up(tokens, middle, 0.0))[real]
        y = (seen.pull - _look_up(tokens, mean, 0.0))[real]
        slope = float(x @ y / max(x @ x, 1e-9))
        rest = seen.pull - slope * place
        typical = float(np.median(rest[real]))
        return cls(
            _by_token(seen, seen.votes), _by_token(seen, rest), slope, float(np.median(seen.votes[real])), typical,
            float(np.exp(-typical)),
        )  # fmt: skip


def _look_up(tokens: np.ndarray, table: Mapping[int, float], other: float) -> np.ndarray:
    size = max(int(tokens.max(initial=0)), max(table, default=0)) + 1
    values = np.full(size, other)
    values[list(table)] = list(table.values())
    found: np.ndarray = values[tokens]
    return found


def _forms(seen: _Seen, answers: tuple[str, str]) -> Iterator[Form]:
    """Ways to decide, the simplest first; each with thresholds from loud to faint."""
    tokens = _Tokens.of(seen)
    voices = {token: vote - tokens.usual for token, vote in tokens.votes.items()}
    loudest = max(map(abs, voices.values()))
    sides = []
    for share in SHARES:
        first = tuple(t for t, voice in voices.items() if voice >= share * loudest)
        second = tuple(t for t, voice in voices.items() if voice <= -share * loudest)
        if (first, second) not in sides:
            sides.append((first, second))
    for first, second in sides:
        yield from _presence(first, second, answers)
    for first, second in sides:
        if first and second:
            yield _majority(first, second, answers)
    for window in range(1, 13):
        for first, second in sides:
            yield from _presence(first, second, answers, window)
    for gap in GAPS:
        looked_at = [t for t, pull in tokens.pulls.items() if pull - tokens.typical > gap]
        lines = sorted({tokens.votes[t] for t in looked_at})
        for line in [(a + b) / 2 for a, b in itertools.pairwise(lines)][:: max(1, len(lines) // 40)]:
            first = tuple(t for t in looked_at if tokens.votes[t] > line)
            yield _last(first, tuple(t for t in looked_at if t not in first), answers)
    for faint in (0.25, 0.1, 0.05, 0.02):
        yield _average(seen, tokens, faint * loudest, answers)


GAPS = (4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5)
"""By how much more than a typical token's the logarithm of attention is that a head's words have."""


def _isin(tokens: np.ndarray, real: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    found: np.ndarray = np.isin(tokens, chosen) & real
    return found


def _sides(first: tuple[int, ...], second: tuple[int, ...], answers: tuple[str, str]) -> tuple[Sets, ...]:
    both = (
        Sets("FOR_FIRST", f"Tokens that speak for {answers[0]!r}.", first),
        Sets("FOR_SECOND", f"Tokens that speak for {answers[1]!r}.", second),
    )
    return tuple(found for found in both if found.tokens)


def _presence(
    first: tuple[int, ...], second: tuple[int, ...], answers: tuple[str, str], window: int | None = None
) -> Iterator[Form]:
    """One of the two sets alone decides, by whether any of its tokens is there; with a window, among the last ones."""
    for sign, name, chosen in ((1, "FOR_FIRST", first), (-1, "FOR_SECOND", second)):
        if not chosen:
            continue

        def score(
            tokens: np.ndarray, real: np.ndarray, chosen: tuple[int, ...] = chosen, sign: int = sign
        ) -> np.ndarray:
            late = real
            if window is not None:
                late = real & (np.arange(real.shape[1]) >= real.sum(axis=1, keepdims=True) - window)
            there = _isin(tokens, late, chosen).any(axis=1)
            return np.where(there, float(sign), -float(sign))

        outcomes = ["1.0, -1.0", "-1.0, 1.0"][::sign]
        where = "tokens" if window is None else f"tokens[-{window}:]"
        lines = (f"if any(token in {name} for token in {where}):", f"    return {outcomes[0]}", f"return {outcomes[1]}")
        yield Form(score, lines, _sides(first if sign > 0 else (), second if sign < 0 else (), answers))


def _majority(first: tuple[int, ...], second: tuple[int, ...], answers: tuple[str, str]) -> Form:
    """Who has more tokens."""

    def score(tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        counts = [_isin(tokens, real, chosen).sum(axis=1) for chosen in (first, second)]
        return np.asarray(counts[0] - counts[1], dtype=float)

    lines = (
        "first = sum(token in FOR_FIRST for token in tokens)",
        "second = sum(token in FOR_SECOND for token in tokens)",
        "return float(first - second), float(second - first)",
    )
    return Form(score, lines, _sides(first, second, answers))


def _last(first: tuple[int, ...], second: tuple[int, ...], answers: tuple[str, str]) -> Form:
    """The head copies: of the tokens that it looks at, the last one decides."""

    def score(tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        place = np.arange(tokens.shape[1])
        latest = [np.where(_isin(tokens, real, chosen), place, -1).max(axis=1) for chosen in (first, second)]
        return np.where(latest[0] > latest[1], 1.0, -1.0)

    lines = (
        "for token in reversed(tokens):",
        "    if token in FOR_FIRST:",
        "        return 1.0, -1.0",
        *(("    if token in FOR_SECOND:", "        return -1.0, 1.0") if second else ()),
        "return -1.0, 1.0",
    )
    return Form(score, lines, _sides(first, second, answers), lambda one, other: _last(one, other, answers))


def _lean(form: Form, seen: _Seen) -> Form:
    """A form without the tokens that no decision hangs on."""
    best = _agreement(form, seen)
    if form.again is None:
        return form
    for token in [token for found in form.sets for token in found.tokens]:
        left = {found.name: tuple(t for t in found.tokens if t != token) for found in form.sets}
        tried = form.again(left.get("FOR_FIRST", ()), left.get("FOR_SECOND", ()))
        if left.get("FOR_FIRST") and _agreement(tried, seen) >= best:
            form, best = tried, _agreement(tried, seen)
    return form


def _average(seen: _Seen, tokens: _Tokens, faint: float, answers: tuple[str, str]) -> Form:
    """An average of votes by attention, the later tokens' weighing more or less by a factor. faint: of a vote, what is
    taken as the usual one."""
    votes = {t: round(v, 1) for t, v in tokens.votes.items() if abs(v - tokens.usual) >= faint}
    pulls = {t: round(float(np.exp(p - tokens.typical)), 2) for t, p in tokens.pulls.items()}
    pulls = {t: w for t, w in pulls.items() if (t in votes and not 0.8 <= w <= 1.25) or w > 4}
    growth, usual = round(float(np.exp(tokens.slope)), 3), round(tokens.usual, 1)
    sink = float(f"{tokens.sink:.2g}") if tokens.sink > 0.01 else 0.0

    def balance(ids: np.ndarray, real: np.ndarray) -> np.ndarray:
        weight = _look_up(ids, pulls, 1.0) * growth ** np.arange(ids.shape[1]) * real
        found: np.ndarray = (weight * _look_up(ids, votes, usual)).sum(axis=1) / (weight.sum(axis=1) + sink)
        return found

    line = float(f"{_threshold(balance(seen.batch.tokens, seen.batch.real), seen.decides > 0):.3g}")

    def score(ids: np.ndarray, real: np.ndarray) -> np.ndarray:
        return balance(ids, real) - line

    weight = "WEIGHTS.get(token, 1.0)" if pulls else "1.0"
    lines = (
        "# Each token weighs by a factor more than the one before it.",
        f"weights = [{weight} * {growth} ** place for place, token in enumerate(tokens)]",
        f"told = sum(weight * VOTES.get(token, {usual}) for weight, token in zip(weights, tokens))",
        f"score = told / {f'(sum(weights) + {sink})' if sink else 'sum(weights)'} - {line}".replace("- -", "+ "),
        "return score, -score",
    )
    spoken = f"How much tokens speak for {answers[0]!r}, below zero for {answers[1]!r}."
    tables = (
        Sets("VOTES", spoken, tuple(votes), tuple(votes.values())),
        Sets("WEIGHTS", "How much of the head's attention they get, others 1.", tuple(pulls), tuple(pulls.values())),
    )
    return Form(score, lines, tuple(table for table in tables if table.tokens))


def _threshold(values: np.ndarray, positive: np.ndarray) -> float:
    """The line above which most of what is to be positive lies, and little else."""
    order = np.argsort(values)
    values, positive = values[order], positive[order]
    below = np.concatenate(([0], np.cumsum(~positive))) + np.concatenate((np.cumsum(positive[::-1])[::-1], [0]))
    edges = np.concatenate(([values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]))
    below[1:-1][values[1:] == values[:-1]] = -1  # no line between equals
    return float(edges[below.argmax()])


def _agreement(form: Form, seen: _Seen) -> float:
    """Share of prompts on which a form gives the circuit's answer."""
    score = form.score(seen.batch.tokens, seen.batch.real)
    return float(((score > 0) == (seen.decides > 0)).mean())


def _text(title: str, task: Task, form: Form, found: Readable, head: int) -> str:
    tokenizer = task.require_tokenizer()
    first, second = task.answers
    about = (
        f"Gives the answer of the exact program on {found.agreement:.1%} of {found.prompts:,} held-out prompts, and "
        f"the right one on {found.accuracy:.1%} (the exact program: {found.exact_accuracy:.1%}). The scores say which "
        "answer, not how surely. Tokens are those of the task's training and validation prompts. Written by "
        "`sparsecircuits export --to python --readable`."
    )
    lines = [f'"""{title}: what head 0.{head} does', "", *textwrap.wrap(about, WIDTH), '"""', ""]
    for found_set in form.sets:
        names = [tokenizer.token(token) for token in found_set.tokens]
        lines.append(f"# {found_set.words}")
        entries = [f"{token}: {name!r}" for token, name in zip(found_set.tokens, names, strict=True)]
        if found_set.numbers is not None:
            entries = [f"{t}: {n:g}" for t, n in zip(found_set.tokens, found_set.numbers, strict=True)]
            lines += _wrapped(f"# {' '.join(map(repr, names))}", "# ")
        lines += _wrapped(f"{found_set.name} = {{{', '.join(entries)}}}", "    ")
    lines += [
        "", "", "def predict(tokens: list[int]) -> tuple[float, float]:",
        f'    """Scores of {first!r} and {second!r} as the next token."""', *(f"    {line}" for line in form.lines),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
