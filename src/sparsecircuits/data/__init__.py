"""From Python source to tokens: corpora, the tinypython generator, the tokenizer, token shards, batches.

`prepare_tokens` turns a corpus spec into cached train and validation tokens; `open_sampler` serves them.
"""

from sparsecircuits.data.batches import BatchSampler, validation_batches
from sparsecircuits.data.corpora import DEFAULT_SPEC, load_corpus
from sparsecircuits.data.mix import open_sampler
from sparsecircuits.data.shards import TokenData, prepare_tokens
from sparsecircuits.data.source import SourceFile
from sparsecircuits.data.tokenizer import Tokenizer

__all__ = [
    "DEFAULT_SPEC",
    "BatchSampler",
    "SourceFile",
    "TokenData",
    "Tokenizer",
    "load_corpus",
    "open_sampler",
    "prepare_tokens",
    "validation_batches",
]
