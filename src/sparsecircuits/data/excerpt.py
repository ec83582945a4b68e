"""A little of a corpus, at once: what a page shows need not wait until the whole of it is made and tokenized."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsecircuits.data import stdlib
from sparsecircuits.data.corpora import GENERATED_FILES, folder_files, stdlib_files
from sparsecircuits.data.reading import LeftOut
from sparsecircuits.data.shards import prepare_tokens, rank
from sparsecircuits.data.spec import Part, parse_spec
from sparsecircuits.data.tinypython import file_name, generate_file
from sparsecircuits.data.tokenizer import Tokenizer

BYTES_A_TOKEN = 3.5
"""Of Python, about."""


def excerpt(spec: str, tokenizer: Tokenizer, tokens: int) -> np.ndarray:
    """At least so many token ids (less, if there are no more) of a corpus's text, each source in its share.

    It is whole files, those that validation takes first: which files are held out is decided by their names, so the
    corpus need not be made for it. A corpus with a stream is prepared as for training. Raises UserError for a spec
    that names nothing, or a missing folder.
    """
    parts = parse_spec(spec)
    if any(part.streamed for part in parts):
        return prepare_tokens(spec, tokenizer).val
    total = sum(part.weight or 1 for part in parts)
    found: list[int] = []
    for part in parts:
        wanted = tokens * (part.weight or 1) / total * BYTES_A_TOKEN
        for text in _first_texts(part):
            found += [tokenizer.eot_id, *tokenizer.encode(text)]
            wanted -= len(text)
            if wanted <= 0:
                break
    return np.array(found, dtype=np.int64)


def _first_texts(part: Part) -> Iterator[str]:
    """A source's files, those that are held out first."""
    if part.generated:
        _, colon, count = part.source.partition(":")
        for i in sorted(range(int(count) if colon else GENERATED_FILES), key=lambda i: rank(file_name(i, part.kind))):
            yield generate_file(i, part.kind)
        return
    files = stdlib_files() if part.source == "stdlib" else folder_files(part.source)
    for _, path in sorted(files, key=lambda file: rank(file[0])):
        try:
            yield stdlib.readable(path)
        except LeftOut:
            continue
