"""From Python source to tokens: corpora, the tinypython generator, the tokenizer, token shards, batches.

`prepare_tokens` turns a corpus spec into cached train and validation tokens; `BatchSampler` serves them.
"""

from sparsecircuits.data.corpora import SourceFile, load_corpus
from sparsecircuits.data.tokenizer import Tokenizer

__all__ = ["SourceFile", "Tokenizer", "load_corpus"]
