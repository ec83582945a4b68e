"""What the circuit of `pretrained:apt` for set_or_string_fixedvarname predicts, tried on the whole model.

python benchmarks/worked.py            # a row for each change of the prompts (docs/worked.md)

The circuit marks `=` behind `current`, then the token behind that `=`, and looks up the marked token. So a value anywhere
else should be missed, and a name that its first channels take for `current` should do as well as `current`.
"""

import re

import torch

import sparsecircuits as sc
from sparsecircuits.tasks import Pair

PAIRS = 128
TASK = "set_or_string_fixedvarname"


def renamed(name: str) -> dict[str, str]:
    """The variable under another name."""
    return {r"\bcurrent\b": name}


CHANGES: dict[str, dict[str, str]] = {
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
"""By what is changed in both prompts: regular expressions and what stands in their places."""


def changed(text: str, change: dict[str, str], other: str) -> str:
    """A prompt after a change; OTHER is the value of the pair's other prompt."""
    for pattern, new in change.items():
        text = re.sub(pattern, new.replace("OTHER", other), text, count=0 if pattern != "^" else 1)
    return text


@torch.no_grad()
def main() -> None:
    """Print the table."""
    model = sc.load_model("pretrained:apt")
    assert model.tokenizer is not None
    tokenizer = model.tokenizer
    task = sc.get_task(TASK, tokenizer)
    answers = [tokenizer.single_token(text) for text in task.answers]
    pairs: list[Pair] = task.pairs("held_out", PAIRS, 0)
    print("| prompts | answered rightly | pairs in the right order |\n|---|---|---|")
    for name, change in CHANGES.items():
        right = ordered = 0
        for pair in pairs:
            gaps = []
            for text, other in ((pair.left, "''"), (pair.right, "set()")):
                ids = tokenizer.encode(changed("\n" + text, change, other).lstrip("\n"))[-model.config.n_ctx :]
                logits = model(torch.tensor([ids]))[0, -1, answers]
                gaps.append((logits[0] - logits[1]).item())
            right += (gaps[0] > 0) + (gaps[1] < 0)
            ordered += gaps[0] > gaps[1]
        print(f"| {name} | {right / (2 * len(pairs)):.0%} | {ordered / len(pairs):.0%} |", flush=True)


if __name__ == "__main__":
    main()
