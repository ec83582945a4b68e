"""Claims about what circuits do, and where that fails: averages over brackets, and queries that are constant."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecircuits.circuits.circuit import Bound
from sparsecircuits.claims.claim import Setting, Subject
from sparsecircuits.claims.judging import number, numbers, unsaid, verdict, where
from sparsecircuits.claims.schema import Row, Rows, Verdict
from sparsecircuits.data import Tokenizer, validation_batches
from sparsecircuits.data.excerpt import excerpt
from sparsecircuits.faithfulness.measures.context import fitting
from sparsecircuits.models.hooks import intervene
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.task_loss import accuracy, all_candidate_logits, correct_of, in_order
from sparsecircuits.tasks import Pair, PairBatch, get_task
from sparsecircuits.tasks.brackets import BRACKET_COUNTING, list_of

BRACKETS = BRACKET_COUNTING.name + ".plain"
"""Without distractors: what the paper's failures are measured against is a model that does the task."""
ITEMS = (2, 4, 8, 16, 32)
PAIRS = 128
DONE = 0.9
"""Share of prompts answered rightly from which a model does a task."""
QUOTE_TASK = "single_double_quote"
TOKENS = 16_384
COMMENTS = {"none": "", "words": "# the rows below", "[": "# see [ below", "[[": "# see [[ below"}
"""What stands before the list; the last two hold brackets that nothing closes."""


def _lists(subject: Subject, setting: Setting, name: str, n: int | None, before: str = "") -> PairBatch | None:
    """Held-out pairs of n items (None: 2 to 10) after a line; None where none of them fits the context."""
    task, rng = get_task(BRACKETS, subject.model.tokenizer), random.Random(f"{name}/{setting.seed}")
    pairs = [list_of(rng, "held_out", n) for _ in range(setting.scaled(PAIRS, 8))]
    after = [Pair(before + p.left, before + p.right, p.left_rest, p.right_rest) for p in pairs]
    batch = fitting(task.encode(after), subject.model.config.n_ctx)
    return batch if len(batch.last) else None


def _answered(subject: Subject, batches: dict[str, PairBatch | None]) -> Iterator[tuple[str, Row]]:
    """Accuracy (calibrated on training pairs), and the share of pairs in the right order, by name of the batch; and
    the accuracy where one level is to be closed."""
    model = subject.model
    fair = fitted(model, training_pairs(get_task(BRACKETS, model.tokenizer)))
    for name, batch in batches.items():
        if batch is None:
            continue
        logits, correct = all_candidate_logits(model, batch), correct_of(batch)
        one = correct == 0
        yield (
            name,
            {
                "pairs": len(batch.last) // 2,
                "accuracy": accuracy(fair(logits), correct),
                "order": in_order(logits, correct),
                "accuracy on one level": accuracy(fair(logits)[one], correct[one]),
            },
        )


def bracket_dilution(setting: Setting) -> list[Row]:
    """bracket_counting on ever longer lists."""
    rows: list[Row] = []
    for subject in setting.subjects:
        setting.tell(subject.name)
        batches = {str(n): _lists(subject, setting, f"dilution {n}", n) for n in ITEMS}
        rows += [{"model": subject.name, "items": int(n), **row} for n, row in _answered(subject, batches)]
    return rows


def judge_bracket_dilution(rows: Rows) -> Verdict:
    """Of the models that do lists of 2 items: does accuracy fall from there to the longest list?"""
    falls: dict[str, float] = {}
    for name in dict.fromkeys(str(row["model"]) for row in rows):
        mine = sorted(where(rows, model=name), key=lambda row: number(row, "items") or 0)
        found = numbers(mine, "accuracy")
        if found and found[0] >= DONE:
            falls[name] = found[0] - found[-1]
    return _fallen(falls, "lists of 2 items", "from 2 items to the longest list")


def _fallen(falls: dict[str, float], on: str, how: str) -> Verdict:
    if not falls:
        return unsaid(f"no model is right on {DONE:.0%} of the prompts with {on}")
    words = ", ".join(f"{name} by {fall:.2f}" for name, fall in falls.items())
    return verdict(max(falls.values()) >= 0.2, max(falls.values()) >= 0.1, f"accuracy falls {how}: {words}")


def bracket_comment(setting: Setting) -> list[Row]:
    """bracket_counting after a comment with brackets that nothing closes, and after comments without."""
    rows: list[Row] = []
    for subject in setting.subjects:
        setting.tell(subject.name)
        lines = {name: f"{line}\n" if line else "" for name, line in COMMENTS.items()}
        # One name for all: the same lists stand after each comment.
        batches = {name: _lists(subject, setting, "comment", None, line) for name, line in lines.items()}
        rows += [{"model": subject.name, "comment": name, **row} for name, row in _answered(subject, batches)]
    return rows


def judge_bracket_comment(rows: Rows) -> Verdict:
    """Of the models that do the task after a comment in words: what do two brackets in it cost where one level is to
    be closed?"""
    falls = {}
    for row in where(rows, comment="words"):
        attacked = where(rows, model=row["model"], comment="[[")
        if (number(row, "accuracy") or 0) >= DONE and attacked:
            before, after = number(row, "accuracy on one level"), number(attacked[0], "accuracy on one level")
            falls[str(row["model"])] = (before or 0) - (after or 0)
    return _fallen(
        falls, "a comment in words before the list", "where one level is to be closed and the comment has [["
    )


def constant_query(setting: Setting) -> list[Row]:
    """Each head of the quote circuits with the queries that its kept keys are multiplied with constant, or zero: what
    that costs on pretraining text, in nats a token."""
    rows: list[Row] = []
    for subject in setting.subjects:
        model, bound = subject.model, subject.circuit(QUOTE_TASK)
        tokenizer = model.tokenizer or Tokenizer.default()
        text = excerpt(model.corpus or "stdlib", tokenizer, setting.scaled(TOKENS, 512))
        setting.tell(subject.name)
        loss = text_loss(model, text)
        for (layer, head), channels in sorted(_query_channels(bound).items()):
            site = f"{layer}.attn.q"
            costs = [text_loss(model, text, {site: change(channels)}) - loss for change in (_averaged, _zeroed)]
            rows.append(
                {
                    "model": subject.name,
                    "head": f"{layer}.{head}",
                    "channels": len(channels),
                    "tokens": len(text),
                    "constant costs": costs[0],
                    "zero costs": costs[1],
                    "loss": loss,
                }
            )
    return rows


def _query_channels(bound: Bound) -> dict[tuple[int, int], list[int]]:
    """By head, the query channels that are kept, or whose key channel is."""
    found: dict[tuple[int, int], set[int]] = {}
    for node in bound.circuit.nodes:
        if node.site in ("attn.q", "attn.k") and node.layer is not None and node.head is not None:
            found.setdefault((node.layer, node.head), set()).add(node.index)
    return {place: sorted(channels) for place, channels in found.items()}


def _averaged(channels: list[int]) -> Callable[[Tensor], Tensor]:
    def apply(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., channels] = x[..., channels].mean(dim=(0, 1))
        return x

    return apply


def _zeroed(channels: list[int]) -> Callable[[Tensor], Tensor]:
    return lambda x: x.index_fill(-1, torch.tensor(channels, device=x.device), 0.0)


@torch.no_grad()
def text_loss(
    model: SparseTransformer, tokens: np.ndarray, changes: dict[str, Callable[[Tensor], Tensor]] | None = None
) -> float:
    """Nats a token on text (1-d ids), under changes of activations by site."""
    losses = text_losses(model, tokens, changes)
    return losses.mean().item()


@torch.no_grad()
def text_losses(
    model: SparseTransformer, tokens: np.ndarray, changes: dict[str, Callable[[Tensor], Tensor]] | None = None
) -> Tensor:
    """Nats of each token [n] of text (1-d ids) in windows of the model's context, one batch of 32 windows at a time."""
    found = []
    with intervene(model, changes or {}):
        for inputs, targets in validation_batches(tokens, model.config.n_ctx, 32):
            logits = model(torch.from_numpy(inputs).to(model.device)).float().flatten(0, 1)
            wanted = torch.from_numpy(targets).to(model.device).flatten()
            found.append(F.cross_entropy(logits, wanted, reduction="none").double().cpu())
    return torch.cat(found)


PAPER_CONSTANT, PAPER_ZERO = 2.6e-5, 1.47e-4


def judge_constant_query(rows: Rows) -> Verdict:
    """Next to nothing: within ten times the paper's cost for the head whose constant costs least. And zero costs more
    than a constant."""
    found = [(number(row, "constant costs"), number(row, "zero costs"), row) for row in rows]
    pairs = [(constant, zero, row) for constant, zero, row in found if constant is not None and zero is not None]
    if not pairs:
        return unsaid("no quote circuit has a query or key channel")
    constant, zero, row = min(pairs, key=lambda pair: abs(pair[0]))
    return verdict(
        abs(constant) <= 10 * PAPER_CONSTANT and zero > constant,
        abs(constant) <= 10 * PAPER_ZERO,
        f"head {row['head']} of {row['model']}: constant {constant:.1e} nats a token, zero {zero:.1e}",
    )
