"""Train the shipped tokenizer: `python -m sparsecircuits.data.train_tokenizer [--out PATH]`.

Deterministic for one interpreter: the text is its standard library and generated files, whose share is raised
so that the idioms of the tasks become single tokens. The shipped file is part of a trained model's identity:
another interpreter or a changed generator gives another vocabulary, so retrain only to start anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from sparsecircuits.data.corpora import read_stdlib
from sparsecircuits.data.tinypython import generate_bytes
from sparsecircuits.data.tokenizer import END_OF_TEXT, PATTERN, SHIPPED, VOCAB_SIZE, Tokenizer

SEED = 7
TINYPYTHON_BYTES = 12_000_000


def train(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` tokens, the last of them end-of-text."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Raw

    raw = Raw(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(texts, trainer)
    raw.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return Tokenizer(raw)


def main() -> None:
    """Train on the standard library and generated files, and write the file."""
    parser = argparse.ArgumentParser(description="Train the shipped tokenizer.")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where tokenizer.json goes")
    files = read_stdlib().files + generate_bytes(TINYPYTHON_BYTES, SEED)
    train(file.text for file in files).save(parser.parse_args().out)


if __name__ == "__main__":
    main()
