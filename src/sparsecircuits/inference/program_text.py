"""The text of a program while it is written: lines, comments, sums, constants."""

import base64
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from sparsecircuits.models.names import split_node, split_site

WIDTH = 118  # of a line that is meant to be read
VARIABLES = {
    "attn.act_in": "read",
    "attn.q": "query",
    "attn.k": "key",
    "attn.v": "value",
    "attn.resid_delta": "write",
    "mlp.act_in": "look",
    "mlp.post_act": "neuron",
    "mlp.resid_delta": "put",
    "final_resid": "final",
}
"""What a node is called in a program, before its layer and channel."""


def variable(node: str) -> str:
    """A node's name as a Python name: 0.attn.k.127 is key0_127."""
    if ".attn.mass." in node:  # no node: what a head's keys get of its attention
        layer, head = node.split(".attn.mass.")
        return f"mass{layer}_{head}"
    site, index = split_node(node)
    place, kind = split_site(site)
    layer = "" if place is None else str(place)
    return f"{VARIABLES[kind]}{layer}_{index}"


@dataclass
class Text:
    """A program's parts while it is written. data: long constants by name, which come last."""

    lines: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    indent: int = 1

    def say(self, line: str = "") -> None:
        """One line of predict."""
        self.lines.append("    " * self.indent + line if line else "")

    def comment(self, words: str) -> None:
        """A comment of one or more lines."""
        pad = "    " * self.indent + "# "
        self.lines += textwrap.wrap(words, WIDTH, initial_indent=pad, subsequent_indent=pad)

    def sum(self, target: str, terms: Iterable[str], around: str = "{}", what: str = "") -> None:
        """target = around(term + term + ...)  # what; over as many lines as it takes."""
        joined = " + ".join(terms).replace("+ -", "- ") or "0.0"
        line = f"{target} = {around.format(joined)}"
        pad = "    " * self.indent
        if what and len(f"{pad}{line}  # {what}") <= WIDTH:
            self.say(f"{line}  # {what}")
            return
        if len(pad + line) <= WIDTH:
            if what:
                self.comment(what)
            self.say(line)
            return
        if around == "{}":
            line = f"{target} = ({joined})"
        # A product stays in one line, and a sign with what it is of.
        held = re.sub(r" \* ", "\0*\0", line)
        held = re.sub(r" ([-+]) ", " \\1\0", held)
        wrapped = textwrap.wrap(
            held, WIDTH, initial_indent=pad, subsequent_indent=pad + "        ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        if what and len(f"{wrapped[-1]}  # {what}") <= WIDTH:
            wrapped[-1] += f"  # {what}"
        elif what:
            self.comment(what)
        self.lines += [part.replace("\0", " ") for part in wrapped]


def number(value: float) -> str:
    """A float32 in as few digits as say it."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.1f}"
    return repr(float(f"{value:.8g}"))


def packed(values: np.ndarray) -> str:
    """Many numbers as one string of base64 (little-endian float32)."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()
