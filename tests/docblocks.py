"""The code blocks of README and docs: found in the Markdown, and the commands in them told apart.

A line `<!-- block: … -->` right above a block says what its fence cannot: `file=NAME`, that the block is the content of
that file, or `slow: REASON`, that it takes minutes, or `needs: MODULE`, which an extra installs.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {"help.md", "api.md"}  # written from the program, and compared with it by other tests
HISTORY = {"log.md"}  # says what was done in its time
LANGUAGES = {"python", "bash", "json", "text"}
_DIRECTIVE = re.compile(r"<!-- block: (?:file=(?P<file>\S+)|slow: (?P<slow>.+)|needs: (?P<needs>\w+)) -->")
_VARIABLE = re.compile(r"[A-Z][A-Z_]*=\S*")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: that of its fence; file: the name that its text goes by; slow: why it takes minutes; needs:
    a module without which it does not run."""

    page: str
    line: int
    language: str
    text: str
    file: str | None = None
    slow: str | None = None
    needs: str | None = None

    @property
    def place(self) -> str:
        """Where it stands, as errors say it."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README, the pages that people write, and what stands beside the code, relative to the root."""
    found = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how").glob("*.md")]
    written = sorted(f"{path.relative_to(ROOT)}" for path in found if path.name not in GENERATED | HISTORY)
    return ["README.md", "CONTRIBUTING.md", "examples/README.md", *written]


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order. Raises ValueError for a directive that says nothing that is known, one
    without a block, and a block without an end."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines() if text is None else text.splitlines()
    found: list[Block] = []
    said: dict[str, str | None] = {}
    start, language = None, ""
    for number, line in enumerate(lines, 1):
        fence = line.strip().startswith("```")
        if start is not None:
            if fence:
                found.append(Block(page, start, language, "\n".join(lines[start : number - 1]) + "\n", **said))
                start, said = None, {}
        elif fence:
            start, language = number, line.strip().removeprefix("```").strip()
        elif line.startswith("<!-- block:"):
            directive = _DIRECTIVE.fullmatch(line)
            if directive is None:
                raise ValueError(f"{page}:{number}: {line} says nothing about a block")
            said = directive.groupdict()
        elif said and line.strip():
            raise ValueError(f"{page}:{number - 1}: no block follows what is said about one")
    if start is not None:
        raise ValueError(f"{page}:{start}: the block does not end")
    return found


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block as words: comments left out, lines joined where a backslash ends one, and without
    variables that are set before a command."""
    joined = block.text.replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in joined.splitlines()]
    for line in words:
        while line and _VARIABLE.fullmatch(line[0]):
            del line[0]
    return [line for line in words if line]
