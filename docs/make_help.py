"""Write docs/help.md: the help page of every command, as the program prints it.

python docs/make_help.py            write it
python docs/make_help.py --check    fail if it is out of date
"""

import contextlib
import io
import os
import sys
from pathlib import Path

os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}

from sparsecircuits.cli import main
from sparsecircuits.cli.arguments import COMMANDS

TARGET = Path(__file__).with_name("help.md")


def page(*arguments: str) -> str:
    """What the program prints for these arguments, 100 columns wide."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*arguments])
    printed.seek(0)
    return "\n".join(line.rstrip() for line in printed.read().splitlines())


def document() -> str:
    """The whole page."""
    parts = ["# Commands", "", "Written by `make docs`.", "", "```", page("--help"), "```"]
    for name in COMMANDS:
        parts += ["", f"## {name}", "", "```", page(name, "--help"), "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    text = document()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8", newline="\n")
    elif TARGET.read_text(encoding="utf-8") != text:
        sys.exit("docs/help.md is out of date: run `make docs`")
