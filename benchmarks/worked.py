"""What worked circuits predict, tried on the whole model.

python benchmarks/worked.py hops       # a row for each change of the prompts (docs/worked.md)
python benchmarks/worked.py quotes
python benchmarks/worked.py brackets

hops, the circuit of `pretrained:apt` for set_or_string_fixedvarname, marks `=` behind `current`, then the token behind
that `=`, and looks up the marked token. So a value anywhere else should be missed, and a comment, whose `=` is not
marked, should not count. Then, how much of their attention its heads give to these tokens, in the whole model.

quotes, the circuit of `pretrained:versed` for single_double_quote, looks back with one head for a token with a quote,
the later the better, and takes ` from` for one. So another quote inside the string should fool it, ` from` should
confuse it, and words that are no quotes should do less.

brackets: whether the whole model of `pretrained:deft` counts what is open, or what was opened.
"""

import re
import sys
from dataclasses import dataclass

import torch

import sparsecircuits as sc
from sparsecircuits.nodes.recording import head_pattern
from sparsecircuits.tasks import Pair

PAIRS = 128


def renamed(name: str) -> dict[str, str]:
    """The variable under another name."""
    return {r"\bcurrent\b": name}


@dataclass(frozen=True)
class Worked:
    """A circuit's model and task, and what is tried on them."""

    model: str
    task: str
    others: tuple[str, str]
    """What OTHER stands for in the left and in the right prompt: what decides in the pair's other one."""
    changes: dict[str, dict[str, str]]
    """By what is changed in both prompts: regular expressions and what stands in their places."""


HOPS = {
    "as they are": {},
    "called `data`": renamed("data"),
    "called `old`": renamed("old"),
    "called `result`": renamed("result"),
    "called `total`": renamed("total"),
    "called `names`": renamed("names"),
    "`current = x = set()`": {r"\bcurrent = (?=set\(\)|''|\"\")": "current = x = "},
    "`current = x or set()`": {r"\bcurrent = (?=set\(\)|''|\"\")": "current = x or "},
    "`current = (set())`": {r"\bcurrent = (set\(\)|''|\"\")": r"current = (\1)"},
    "`# current = ` the other value, before": {r"^": "# current = OTHER\n"},
    "`# current = ` the other value, after": {r"(\ncurrent = (?:set\(\)|''|\"\")\n)": r"\1# current = OTHER\n"},
}
QUOTES = {
    "as they are": {},
    "` door` behind them": {r"\Z": " door"},
    "` from` behind them": {r"\Z": " from"},
    "` door door door` behind them": {r"\Z": " door door door"},
    "` from from from` behind them": {r"\Z": " from from from"},
    "twelve words behind them": {r"\Z": " open" + " price total wrong page happy door my new last full" + " ready"},
    "the other quote and a word behind them": {r"\Z": " OTHERno"},
    "the other quote and five words behind them": {r"\Z": " OTHERno price total wrong page"},
    "a closed string of the other quote before them": {r"^": "log(OTHERpage readyOTHER)\n"},
}
BRACKETS = {
    "as they are": {},
    "a closed list before them": {r"^": "rest = [first, last]\n"},
    "a closed list in a list before them": {r"^": "rest = [[first, last]]\n"},
    "`# [` before them": {r"^": "# [\n"},
    "`# [[` before them": {r"^": "# [[\n"},
    "three items more": {r"\Z": ", first, last, other"},
    "nine items more": {r"\Z": ", first, last, other, price, total, page, door, word, line"},
    "`, (first)` behind them": {r"\Z": ", (first)"},
    "`, first[0]` behind them": {r"\Z": ", first[0]"},
    "`, [first]` behind them": {r"\Z": ", [first]"},
}
WORKED = {
    "hops": Worked("pretrained:apt", "set_or_string_fixedvarname", ("''", "set()"), HOPS),
    "brackets": Worked("pretrained:deft", "bracket_counting", ("[[", "["), BRACKETS),
    "quotes": Worked("pretrained:versed", "single_double_quote", ('"', "'"), QUOTES),
}


def changed(text: str, change: dict[str, str], other: str) -> str:
    """A prompt after a change; OTHER is the value of the pair's other prompt."""
    for pattern, new in change.items():
        text = re.sub(pattern, new.replace("OTHER", other), text, count=0 if pattern != "^" else 1)
    return text


HEADS = {
    "0.11, from `=` to the name": (0, 11, 1, 0),
    "0.9, from `=` to the name": (0, 9, 1, 0),
    "1.4, from the value to `=`": (1, 4, 2, 1),
    "1.13, from the value to `=`": (1, 13, 2, 1),
    "3.8, from the last token to the value": (3, 8, None, 2),
}
"""By what is measured: layer, head, and which tokens from the name on query and key are (None: the last of all)."""


def place_of_name(ids: list[int], model: sc.SparseTransformer) -> int:
    """Where the name stands that is bound: the last `current` before a ` =`."""
    assert model.tokenizer is not None
    texts = [model.tokenizer.decode([token]) for token in ids]
    return max(i for i in range(len(ids) - 1) if texts[i].strip() == "current" and texts[i + 1] == " =")


@torch.no_grad()
def attention_given(model: sc.SparseTransformer, pairs: list[Pair]) -> dict[str, float]:
    """Mean share of each head's attention, over both prompts of all pairs."""
    assert model.tokenizer is not None
    found: dict[str, list[float]] = {name: [] for name in HEADS}
    for pair in pairs:
        for text in (pair.left, pair.right):
            ids = model.tokenizer.encode(text)[-model.config.n_ctx :]
            name = place_of_name(ids, model)
            with sc.record(model, r"\d+\.attn\.(q|k)") as seen:
                model(torch.tensor([ids]))
            for what, (layer, head, query, key) in HEADS.items():
                pattern = head_pattern(model, seen, layer, head)[0]
                found[what].append(pattern[-1 if query is None else name + query, name + key].item())
    return {what: sum(shares) / len(shares) for what, shares in found.items()}


@torch.no_grad()
def tried(model: sc.SparseTransformer, worked: Worked, pairs: list[Pair]) -> None:
    """Print a row for each change: how much the whole model gets right."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    answers = [tokenizer.single_token(text) for text in sc.get_task(worked.task, tokenizer).answers]
    print("| prompts | answered rightly | pairs in the right order |\n|---|---|---|")
    for name, change in worked.changes.items():
        right = ordered = 0
        for pair in pairs:
            gaps = []
            for text, other in zip((pair.left, pair.right), worked.others, strict=True):
                ids = tokenizer.encode(changed("\n" + text, change, other).lstrip("\n"))[-model.config.n_ctx :]
                logits = model(torch.tensor([ids]))[0, -1, answers]
                gaps.append((logits[0] - logits[1]).item())
            right += (gaps[0] > 0) + (gaps[1] < 0)
            ordered += gaps[0] > gaps[1]
        print(f"| {name} | {right / (2 * len(pairs)):.0%} | {ordered / len(pairs):.0%} |", flush=True)


def main(which: str) -> None:
    """Print the tables of one worked circuit."""
    worked = WORKED[which]
    model = sc.load_model(worked.model)
    pairs = sc.get_task(worked.task, model.tokenizer).pairs("held_out", PAIRS, 0)
    tried(model, worked, pairs)
    if which == "hops":
        print("\n| head | share of its attention |\n|---|---|")
        for what, share in attention_given(model, pairs).items():
            print(f"| {what} | {share:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1])
