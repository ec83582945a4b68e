"""Batches from a stream: blocks of documents are read, tokenized and cut into windows, which are shuffled.

The shuffling buffer is the block. It is decided by where the stream stood at its start and by the seed, so a
checkpoint holds that place, a position and a hash instead of the block, and a resumed run goes on bit-equal: when
the library does not find the place again, documents are counted from the beginning.
"""

from __future__ import annotations

import functools
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsecircuits.data.batches import Batch, cut_windows
from sparsecircuits.data.hub import DocumentStream, HubSource, resolved_revision, text_rank
from sparsecircuits.data.tokenizer import Tokenizer
from sparsecircuits.errors import UserError

HOLDOUT = 0.05
"""Share of the documents that validate, chosen by the hash of their text."""
HEAD_TOKENS = 2_000_000
"""Tokens of the stream's beginning that are kept as shards: bigram counts, means for pruning, validation."""
BLOCK_TOKENS = 1_048_576
CHUNK = 16


@dataclass(frozen=True)
class Head:
    """The beginning of a stream, split; `about` is what reading on needs (JSON-able)."""

    train: list[str]
    val: list[str]
    about: dict[str, Any]


def read_head(text: str, tokenizer: Tokenizer, tokens: int = HEAD_TOKENS) -> Head:
    """The first documents of `hf:…` until `tokens` of them are for training, or all there are.

    Raises UserError for a dataset that cannot be read or has fewer than two documents.
    """
    source = HubSource.parse(text)
    revision = resolved_revision(source)
    stream = DocumentStream(source, revision)
    documents: list[str] = []
    count = 0
    while count < tokens and not stream.ended:
        chunk = stream.read(CHUNK)
        documents += chunk
        count += sum(map(len, tokenizer.encode_batch(chunk)))
    if len(set(documents)) < 2:
        raise UserError(f"{text} holds {len(set(documents))} documents with text; it takes two at least")
    # A small dataset may have none below 5%: then its lowest one validates.
    holdout = max(HOLDOUT, float(np.nextafter(min(map(text_rank, documents)), 1)))
    about = {"source": text, "revision": revision, "holdout": holdout}
    train = [document for document in documents if text_rank(document) >= holdout]
    return Head(train, [document for document in documents if text_rank(document) < holdout], about)


@dataclass(frozen=True)
class _Block:
    """A block's tokens [n], where it starts, and where the next one does (None: at the dataset's beginning)."""

    tokens: np.ndarray
    start: dict[str, Any] | None
    following: dict[str, Any] | None

    @functools.cached_property
    def digest(self) -> str:
        """Hex hash of the tokens: whether a resumed stream goes on where it was."""
        return hashlib.sha256(self.tokens.astype("<u4").tobytes()).hexdigest()[:32]


class StreamSampler:
    """Endless batches of windows of a stream, all decided by `seed`; the next block is read ahead in a thread."""

    def __init__(
        self,
        about: dict[str, Any],
        tokenizer: Tokenizer,
        n_ctx: int,
        batch_size: int,
        seed: int = 0,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        """about: from `Head`. Raises UserError when the dataset cannot be opened."""
        self.about, self.tokenizer = about, tokenizer
        self.n_ctx, self.batch_size, self.seed, self.block_tokens = n_ctx, batch_size, seed, block_tokens
        self._stream = DocumentStream(HubSource.parse(about["source"]), about["revision"])
        self._reader = ThreadPoolExecutor(1, "stream")
        self._ahead: Future[_Block] | None = None
        self._begin(0, 0, None)

    def take(self, count: int) -> Batch:
        """The next `count` windows: (inputs, targets), int64 [count, n_ctx] each."""
        parts = []
        while count:
            empty_epochs = 0
            while self.position == len(self._starts):
                empty_epochs += self._block.following is None and not len(self._starts)
                if empty_epochs > 1:
                    raise UserError(f"{self.about['source']} holds too few tokens for a context of {self.n_ctx}")
                self._advance()
            taken = self._starts[self.position : self.position + count]
            self.position += len(taken)
            count -= len(taken)
            parts.append(cut_windows(self._block.tokens, taken, self.n_ctx))
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

    def next(self) -> Batch:
        """The next batch: (inputs, targets), int64 [batch_size, n_ctx] each."""
        return self.take(self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as a small JSON-able dict."""
        return {
            "epoch": self.epoch,
            "block": self.block,
            "position": self.position,
            "start": self._block.start,
            "digest": self._block.digest,
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken. Raises UserError if it belongs to another stream."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise UserError(f"cannot resume: the data order was saved with {name} {state.get(name)}, now {value}")
        if "digest" not in state:
            raise UserError("cannot resume: the data order was saved by an earlier version of sparsecircuits")
        place = (int(state["epoch"]), int(state["block"]), state["start"])
        self._begin(*place)
        if self._block.digest != state["digest"] and state["start"] is not None:
            self._begin(*place, by_reading=True)  # the library lost its place
        if self._block.digest != state["digest"]:
            raise UserError(
                f"cannot resume: {self.about['source']} no longer holds the documents that training was reading"
            )
        self.position = int(state["position"])

    def _identity(self) -> dict[str, Any]:
        return {**self.about, "seed": self.seed, "n_ctx": self.n_ctx, "block_tokens": self.block_tokens}

    def _begin(self, epoch: int, block: int, start: dict[str, Any] | None, *, by_reading: bool = False) -> None:
        """Drop what was read ahead and start at a block."""
        if self._ahead is not None:
            self._ahead.exception()  # the stream must not be read from two threads
        self._use(epoch, block, self._reader.submit(self._read, start, True, by_reading).result())

    def _advance(self) -> None:
        assert self._ahead is not None
        ended = self._block.following is None
        epoch, block = (self.epoch + 1, 0) if ended else (self.epoch, self.block + 1)
        self._use(epoch, block, self._ahead.result())

    def _use(self, epoch: int, block: int, made: _Block) -> None:
        """Shuffle a block's windows, from a random offset on, and read the next block ahead."""
        self.epoch, self.block, self._block, self.position = epoch, block, made, 0
        rng = np.random.default_rng([self.seed, epoch, block])
        spare = len(made.tokens) - 1
        offset = int(rng.integers(max(1, min(self.n_ctx, spare - self.n_ctx + 1))))
        self._starts = offset + self.n_ctx * rng.permutation(max(0, (spare - offset) // self.n_ctx))
        self._ahead = self._reader.submit(self._read, made.following, made.following is None)

    def _read(self, start: dict[str, Any] | None, seek: bool, by_reading: bool = False) -> _Block:
        """The block at `start`: whole chunks of documents until it is full or the dataset ends."""
        if seek:
            self._stream.seek(start, by_reading=by_reading)
        parts: list[np.ndarray] = []
        size = 0
        dtype = np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32
        while size < self.block_tokens and not self._stream.ended:
            texts = [text for text in self._stream.read(CHUNK) if text_rank(text) >= self.about["holdout"]]
            for ids in self.tokenizer.encode_batch(texts):
                parts.append(np.array([self.tokenizer.eot_id, *ids], dtype))
                size += len(ids) + 1
        tokens = np.concatenate(parts) if parts else np.empty(0, dtype)
        return _Block(tokens, start, None if self._stream.ended else self._stream.state())
