"""The text that names a corpus: sources joined by "+", with or without weights.

stdlib+tinypython                 everything of each; a bare tinypython makes 45% of the bytes
tinypython:2000, drills:2000, bindings:2000, forms:2000
                                  generated files, so many of them (`data.tinypython`, its `drills` and `forms`)
0.6*stdlib+0.4*tinypython         shares of the training tokens, kept exactly; relative, so 3*a+2*b is the same
hf:NAME[:CONFIG][@REVISION][#COLUMN]   a streamed Hugging Face dataset, or one on disk (hf:PATH)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsecircuits.data.tinypython import KINDS
from sparsecircuits.errors import UserError
from sparsecircuits.files import expanded

ALLOWED = (
    'a corpus is "stdlib", "tinypython", "tinypython:N", "drills", "drills:N", "bindings:N", "forms:N", a folder, '
    '"hf:NAME", or several joined by "+", with weights as in "0.6*stdlib+0.4*tinypython"'
)


@dataclass(frozen=True)
class Part:
    """One source of a corpus. weight: its share of the tokens (all weights add up to 1), or None."""

    source: str
    weight: float | None = None

    @property
    def generated(self) -> bool:
        """Whether it is written by a grammar."""
        return self.kind in KINDS

    @property
    def kind(self) -> str:
        """What stands before a colon: of generated files, which ones."""
        return self.source.partition(":")[0]

    @property
    def streamed(self) -> bool:
        """Whether it is a Hugging Face dataset."""
        return self.source.startswith("hf:")


def parse_spec(spec: str) -> list[Part]:
    """The sources of a spec, checked. A folder whose path holds a "+" or "*" wins over a mix.

    Raises UserError for an unknown source, a weight that is no positive number, weights on some sources
    only, a source named twice, or an unlimited source in a mix without weights.
    """
    if spec not in ("stdlib", *KINDS) and spec and expanded(spec).is_dir():
        return [Part(spec)]
    parts = [_part(text.strip()) for text in spec.split("+")]
    if len({part.source for part in parts}) < len(parts):
        raise UserError(f'"{spec}" names the same corpus twice')
    weights = [part.weight for part in parts if part.weight is not None]
    if not weights:
        if len(parts) > 1 and any(part.streamed for part in parts):
            raise UserError(f'"{spec}": a stream has no end, so say how much of each: "0.5*stdlib+0.5*hf:NAME"')
        return parts if not parts[0].streamed else [Part(parts[0].source, 1.0)]
    if len(weights) < len(parts):
        raise UserError(f'"{spec}": give every source a weight, or none')
    return [Part(part.source, (part.weight or 0.0) / math.fsum(weights)) for part in parts]


def _part(text: str) -> Part:
    """A source with its weight as written."""
    weight = None
    head, star, rest = text.partition("*")
    if star and not expanded(text).is_dir():
        try:
            weight = float(head)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise UserError(f'"{text}": a weight must be a number above 0, as in "0.6*stdlib"')
        text = rest.strip()
    _check_source(text)
    return Part(text, weight)


def _check_source(text: str) -> None:
    head, colon, count = text.partition(":")
    if text in ("stdlib", *KINDS):
        return
    if head in KINDS and colon:
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise UserError(f'"{text}": the number of files must be a whole number above 0, as in "{head}:500"')
    elif head == "hf" and colon:
        if not count:
            raise UserError('"hf:" names no dataset: write hf:NAME or hf:PATH')
    elif not text or not expanded(text).is_dir():
        raise UserError(f'unknown corpus "{text}" (no such folder either): {ALLOWED}')
