"""A bigram table from counts."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SMOOTHING = 100.0  # pseudo-counts drawn from the unigram; the best of 10, 30, 100, 300 on validation text
MOST_TOKENS = 50_000_000


def bigram_log_frequencies(tokens: np.ndarray, vocab_size: int) -> Float[Tensor, "vocab vocab"]:
    """log p(next | current) of a token array, smoothed towards the unigram, each row centred on zero.

    tokens: 1-d ids; the first 50 million are counted.
    """
    ids = np.asarray(tokens[:MOST_TOKENS], dtype=np.int64)
    pairs = np.bincount(ids[:-1] * vocab_size + ids[1:], minlength=vocab_size**2)
    counts = pairs.reshape(vocab_size, vocab_size).astype(np.float32)
    unigram = np.bincount(ids, minlength=vocab_size).astype(np.float32) + 0.1
    unigram /= unigram.sum()
    frequency = (counts + SMOOTHING * unigram) / (counts.sum(axis=1, keepdims=True) + SMOOTHING)
    table = np.log(frequency)
    return torch.from_numpy(table - table.mean(axis=1, keepdims=True))
