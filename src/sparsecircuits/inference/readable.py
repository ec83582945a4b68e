"""A circuit decompiled: what its one attention layer does, as a person would have written it.

Tokens speak for one answer or the other, and a head weighs what they say. From prompts one learns which tokens speak,
how loudly, and how much of the head's attention each gets; then the simplest of some forms that decides as the circuit
does is taken: whether a word is there, who is in the majority, a weighted average. What it agrees on with the exact
program is measured on held-out prompts.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.circuits.descriptions import activations
from sparsecircuits.errors import UserError
from sparsecircuits.inference.contests import running_heads
from sparsecircuits.inference.plan import Plan
from sparsecircuits.inference.program import WIDTH, check_exportable
from sparsecircuits.kernels.rms_norm import EPSILON
from sparsecircuits.nodes.task_loss import all_candidate_logits
from sparsecircuits.tasks import PairBatch, Task

LEARN, TEST = 256, 512  # pairs
ENOUGH = 0.97
"""Share of the learning prompts on which a form must decide as the circuit does."""
LEAST = 0.95
"""The same on held-out prompts, below which nothing is written."""
SHARES = (0.75, 0.5, 0.25, 0.1, 0.05, 0.02)
"""Of the loudest token's voice: what counts as a voice at all (the paper's thresholds of features, and lower ones)."""


@dataclass(frozen=True)
class Voices:
    """Which tokens speak for the first answer and which for the second, with one loudness each, and which ones a head
    attends to `weight` times as much as to others. sink: how many of these others it is worth."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    loud: tuple[float, float]
    attended: tuple[int, ...] = ()
    weight: float = 1.0
    sink: float = 0.0


@dataclass(frozen=True)
class Form:
    """A way to decide. score(tokens [n, T], real [n, T]) is positive where the first answer is to be given; lines are
    the same in Python."""

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    lines: tuple[str, ...]
    voices: Voices


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
    plan = Plan.of_circuit(bound)
    head = _only_head(plan)
    learn, test = (
        _watch(bound, plan, head, task.encode(task.draw(split, n, 0)))
        for split, n in (("train", LEARN), ("held_out", TEST))
    )
    best: tuple[float, Form] | None = None
    for form in _forms(learn):
        agreement = _agreement(form, learn)
        if best is None or agreement > best[0] + 1e-9:
            best = agreement, form
        if agreement >= ENOUGH:
            break
    assert best is not None
    form = best[1]
    agreement = _agreement(form, test)
    if agreement < LEAST:
        raise UserError(
            f"no readable program found: the best one gives the exact program's answer on {agreement:.1%} of held-out "
            f"prompts, fewer than {LEAST:.0%}"
        )
    score = form.score(test.batch.tokens, test.batch.real)
    right = test.batch.correct == 0
    found = Readable("", agreement, float(((score > 0) == right).mean()), float(((test.decides > 0) == right).mean()), len(right))
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


def _forms(seen: _Seen) -> Iterator[Form]:
    """Ways to decide, the simplest first; each with thresholds from loud to faint."""
    votes, pull = _by_token(seen, seen.votes), _by_token(seen, seen.pull)
    usual = float(np.median(seen.votes[seen.batch.real]))
    voices = {token: vote - usual for token, vote in votes.items()}
    loudest = max(map(abs, voices.values()))
    sets = []
    for share in SHARES:
        first = tuple(t for t, voice in voices.items() if voice >= share * loudest)
        second = tuple(t for t, voice in voices.items() if voice <= -share * loudest)
        loud = tuple(abs(float(np.mean([voices[t] for t in side]))) if side else 0.0 for side in (first, second))
        if (first, second) not in [(v.first, v.second) for v in sets]:
            sets.append(Voices(first, second, (loud[0], loud[1])))
    for found in sets:
        yield from _presence(found)
    for found in sets:
        if found.first and found.second:
            yield _majority(found)
    typical = float(np.median(seen.pull[seen.batch.real]))
    sink = float(np.exp(-typical))
    for found in sets:
        yield _average(seen, found, sink)
    for gap in (2.0, 1.0, 0.5):
        attended = tuple(t for t, p in pull.items() if p - typical > gap)
        if attended:
            weight = float(np.exp(np.mean([pull[t] for t in attended]) - typical))
            for found in sets:
                more = Voices(found.first, found.second, found.loud, attended, weight, sink)
                yield _average(seen, more, sink)


def _isin(tokens: np.ndarray, real: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    found: np.ndarray = np.isin(tokens, chosen) & real
    return found


def _presence(voices: Voices) -> Iterator[Form]:
    """One of the two sets alone decides, by whether any of its tokens is there."""
    for side, name in ((0, "FOR_FIRST"), (1, "FOR_SECOND")):
        chosen = (voices.first, voices.second)[side]
        if not chosen:
            continue
        sign = 1 - 2 * side

        def score(tokens: np.ndarray, real: np.ndarray, chosen: tuple[int, ...] = chosen, sign: int = sign) -> np.ndarray:
            return sign * (2.0 * _isin(tokens, real, chosen).any(axis=1) - 1)

        outcome = ("1.0, -1.0", "-1.0, 1.0") if side == 0 else ("-1.0, 1.0", "1.0, -1.0")
        lines = (f"if any(token in {name} for token in tokens):", f"    return {outcome[0]}", f"return {outcome[1]}")
        kept = Voices(chosen if side == 0 else (), chosen if side == 1 else (), voices.loud)
        yield Form(score, lines, kept)


def _majority(voices: Voices) -> Form:
    """Who has more tokens."""

    def score(tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        first, second = (_isin(tokens, real, chosen).sum(axis=1) for chosen in (voices.first, voices.second))
        return first - second + 0.0

    lines = (
        "first = sum(token in FOR_FIRST for token in tokens)",
        "second = sum(token in FOR_SECOND for token in tokens)",
        "return float(first - second), float(second - first)",
    )
    return Form(score, lines, voices)


def _average(seen: _Seen, voices: Voices, sink: float) -> Form:
    """An average of voices, in which some tokens count more, and a sink as much as several."""
    loud = voices.loud

    def balance(tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        weight = np.where(np.isin(tokens, voices.attended), voices.weight, 1.0) * real
        first, second = (np.isin(tokens, chosen) for chosen in (voices.first, voices.second))
        told: np.ndarray = (weight * (loud[0] * first - loud[1] * second)).sum(axis=1)
        return told / (weight.sum(axis=1) + sink)

    line = _threshold(balance(seen.batch.tokens, seen.batch.real), seen.decides > 0)

    def score(tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
        return balance(tokens, real) - line

    weigh = f"{voices.weight:.2g} if token in ATTENDED else 1.0" if voices.attended else "1.0"
    told = []
    told += [f"{loud[0]:.3g} * (token in FOR_FIRST)"] if voices.first else []
    told += [f"{loud[1]:.3g} * (token in FOR_SECOND)"] if voices.second else []
    joined = " - ".join(told) if voices.first else f"-{told[0]}"
    lines: tuple[str, ...]
    if voices.attended:
        lines = (
            f"weights = [{weigh} for token in tokens]",
            f"told = sum(weight * ({joined}) for weight, token in zip(weights, tokens))",
            f"score = told / (sum(weights) + {sink:.3g}) - {line:.4g}",
        )
    else:
        lines = (
            f"told = sum({joined} for token in tokens)",
            f"score = told / (len(tokens) + {sink:.3g}) - {line:.4g}",
        )
    return Form(score, (*(x.replace("- -", "+ ") for x in lines), "return score, -score"), voices)


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
        f"Gives the answer of the exact program on {found.agreement:.1%} of {found.prompts:,} held-out prompts, and the "
        f"right one on {found.accuracy:.1%} (the exact program: {found.exact_accuracy:.1%}). The scores say which answer, "
        "not how surely. Token sets hold what occurs in the task's training prompts. Written by `sparsecircuits export "
        "--to python --readable`."
    )
    lines = [f'"""{title}: what head 0.{head} does', "", *textwrap.wrap(about, WIDTH), '"""', ""]
    for name, chosen, words in (
        ("FOR_FIRST", form.voices.first, f"Tokens that speak for {first!r}."),
        ("FOR_SECOND", form.voices.second, f"Tokens that speak for {second!r}."),
        ("ATTENDED", form.voices.attended, "Tokens that the head looks at."),
    ):
        if chosen:
            entries = ", ".join(f"{token}: {tokenizer.token(token)!r}" for token in chosen)
            lines += [f"# {words}"]
            lines += textwrap.wrap(f"{name} = {{{entries}}}", WIDTH, subsequent_indent="    ", break_long_words=False)
    lines += [
        "", "", "def predict(tokens: list[int]) -> tuple[float, float]:",
        f'    """Scores of {first!r} and {second!r} as the next token."""', *(f"    {line}" for line in form.lines),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
