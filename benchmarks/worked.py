"""What the circuit of `pretrained:apt` for set_or_string_fixedvarname predicts, tried on the whole model.

python benchmarks/worked.py            # a row for each change of the prompts (docs/worked.md)

The circuit marks `=` behind `current`, then the token behind that `=`, and looks up the marked token. So a value
anywhere else should be missed, and a comment, whose `=` is not marked, should not count. Then, how much of their
attention its heads give to these tokens, in the whole model.
"""

import re

import torch

import sparsecircuits as sc
from sparsecircuits.nodes.recording import head_pattern
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
def main() -> None:
    """Print the tables."""
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
    print("\n| head | share of its attention |\n|---|---|")
    for what, share in attention_given(model, pairs).items():
        print(f"| {what} | {share:.2f} |")


if __name__ == "__main__":
    main()
