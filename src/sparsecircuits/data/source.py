"""One source file, by name and text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceFile:
    """A file of a corpus; `name` is unique there and tells the source ("stdlib/json/decoder.py")."""

    name: str
    text: str
