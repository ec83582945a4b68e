"""What nodes do on pretraining text: histogram and examples by quantile."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from sparsecircuits.circuits.extraction import by_site
from sparsecircuits.data import Tokenizer
from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.viewer.schema import Band, Example, Histogram, OnText

SEQUENCES, ROWS_AT_ONCE, BINS, PER_BAND = 192, 16, 41, 4
BEFORE, AFTER = 14, 5  # tokens of context around an example
# Bands of the nonzero values by rank, from the most positive to the most negative.
BANDS = {"top": (1.0, 0.999), "upper quarter": (0.78, 0.72), "middle": (0.53, 0.47), "lower quarter": (0.28, 0.22)}


def sequence_length(model: SparseTransformer) -> int:
    """Tokens of a sequence that is read."""
    return min(model.config.n_ctx, 128)


def tokens_read(model: SparseTransformer) -> int:
    """Tokens of all sequences that are read."""
    return SEQUENCES * sequence_length(model)


@torch.no_grad()
def read_text(
    model: SparseTransformer,
    tokens: np.ndarray,
    names: Sequence[str],
    lock: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Run pretraining text and keep what the named nodes do: (ids [n, T], {node: activations [n, T]}).

    tokens: 1-d ids, from which evenly spaced sequences are taken. lock: entered for each pass, so that a
    long reading does not hold the model.
    """
    length = sequence_length(model)
    count = max(1, min(SEQUENCES, len(tokens) // length))
    starts = np.linspace(0, max(0, len(tokens) - length), count).astype(np.int64)
    ids = np.stack([np.asarray(tokens[start : start + length], dtype=np.int64) for start in starts])
    grouped = by_site(list(names))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, count, ROWS_AT_ONCE):
        rows = torch.from_numpy(ids[start : start + ROWS_AT_ONCE])
        with lock(), record(model, grouped) as seen:
            model.final_hidden(rows.to(model.device))
        for site, channels in grouped.items():
            values = seen[site][..., channels].float().cpu().numpy()
            for place, channel in enumerate(channels):
                parts[f"{site}.{channel}"].append(values[..., place])
    return ids, {name: np.concatenate(part) for name, part in parts.items()}


def describe(ids: np.ndarray, values: np.ndarray, tokenizer: Tokenizer) -> OnText:
    """Histogram and examples of one node. ids, values: [n, T].

    Bands of examples: the largest values (top), bands of the nonzero values by rank, and the
    smallest (bottom); each example is a few tokens with their activations, no two from one sequence.
    """
    nonzero = values[values != 0]
    return OnText(
        n_tokens=int(values.size),
        active=float(nonzero.size / values.size),
        histogram=_histogram(nonzero),
        examples=[
            Band(band=band, items=[_example(ids, values, row, at, tokenizer) for row, at in places])
            for band, places in _bands(values)
            if places
        ],
    )


def _histogram(nonzero: np.ndarray) -> Histogram | None:
    """Counts of the nonzero values; with AbsTopK most values are exactly 0 and would hide the rest."""
    if nonzero.size == 0:
        return None
    counts, edges = np.histogram(nonzero, bins=BINS)
    return Histogram(low=float(edges[0]), high=float(edges[-1]), counts=counts.tolist())


def _bands(values: np.ndarray) -> list[tuple[str, list[tuple[int, int]]]]:
    flat = values.ravel()
    order = np.flatnonzero(flat)
    order = order[np.argsort(-flat[order], kind="stable")]
    found = []
    for band, (high, low) in BANDS.items():
        first, last = round((1 - high) * order.size), round((1 - low) * order.size)
        found.append((band, _distinct(order[first : max(last, first + 200)], values.shape[1])))
    found.append(("bottom", _distinct(order[::-1][:400], values.shape[1])))
    return found


def _distinct(places: np.ndarray, length: int) -> list[tuple[int, int]]:
    """The first few places, no two in the same sequence."""
    chosen: dict[int, int] = {}
    for place in places.tolist():
        chosen.setdefault(place // length, place % length)
        if len(chosen) == PER_BAND:
            break
    return list(chosen.items())


def _example(ids: np.ndarray, values: np.ndarray, row: int, at: int, tokenizer: Tokenizer) -> Example:
    start, stop = max(0, at - BEFORE), at + AFTER + 1
    return Example(
        tokens=[tokenizer.token(token) for token in ids[row, start:stop].tolist()],
        values=[rounded(value) for value in values[row, start:stop].tolist()],
        at=at - start,
    )


def rounded(value: float) -> float:
    """Five significant digits: what is shown, and half the bytes."""
    return float(f"{value:.5g}")
