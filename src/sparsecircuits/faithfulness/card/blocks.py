"""What stands on a card, in order and without a format: what Markdown, the HTML page and the viewer are written from.

All text is plain: whoever writes it escapes it and chooses the emphasis.
"""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "bad", "open"]
_TONES: dict[str, Tone] = {
    "distinguishable from null": "good",
    "not distinguishable from null": "bad",
    "no circuit needed": "bad",
}


@dataclass(frozen=True)
class Paragraph:
    """A line or more of running text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows as long as the header. A heading may be empty."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Paragraph | Table


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Body:
    """The whole card. What the viewer shows elsewhere, or the page before its plots, has a field of its own."""

    title: str
    size: Paragraph
    verdict: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    losses: tuple[Block, ...]
    """The first table, and what has to be known to read it."""
    sections: tuple[Section, ...]

    @property
    def tone(self) -> Tone:
        """What colours the verdict; open while nothing is decided."""
        return _TONES.get(self.verdict, "open")
