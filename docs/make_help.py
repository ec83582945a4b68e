"""Write docs/help.md: the help page of every command, as the program prints it.

python docs/make_help.py            write it
python docs/make_help.py --check    fail if it is out of date
"""

import os
import subprocess
import sys
from pathlib import Path

from sparsecircuits.cli.arguments import COMMANDS

TARGET = Path(__file__).with_name("help.md")


def page(*arguments: str) -> str:
    """What the program prints for these arguments, 100 columns wide."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "sparsecircuits", *arguments]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in printed.splitlines())


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
