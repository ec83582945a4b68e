"""What the circuit of closing quotes does, in numbers: where it looks, and where that fails.

python benchmarks/quotes.py RUN

RUN: a run with a circuit of `single_double_quote`. Prints means of its key and value channels at tokens with a quote
and at others, how keys grow with the position, and accuracy of circuit and whole model, calibrated, by closed calls
before the line, with quotes of both kinds before it, and by the number of tokens since the last quote.
"""

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import sparsecircuits as sc
from sparsecircuits.circuits.circuit import Circuit
from sparsecircuits.circuits.losses import circuit_logits
from sparsecircuits.nodes.calibration import fitted, training_pairs
from sparsecircuits.nodes.task_loss import all_candidate_logits, correct_of
from sparsecircuits.runs import circuit_path, circuits_folder
from sparsecircuits.tasks import PLAIN, Pair, PairBatch

NAME = "single_double_quote"
PAIRS = 1000
WORDS = "ready denied open price total wrong page happy".split()
CALLS = "print log show send".split()
DISTANCES = (0, 5, 9, 13, 17, 21, 10_000)


def after_calls(pairs: list[Pair], n: int, rng: random.Random) -> Iterator[Pair]:
    """The pairs after n calls on closed strings, of either quote."""
    for pair in pairs:
        quotes = [rng.choice("'\"") for _ in range(n)]
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 3))) for _ in quotes]
        before = "".join(f"{rng.choice(CALLS)}({q}{text}{q})\n" for q, text in zip(quotes, texts, strict=True))
        yield Pair(before + pair.left, before + pair.right, pair.left_rest, pair.right_rest)


def main(run: str) -> None:
    model = sc.load_model(run)
    circuit = Circuit.load(circuit_path(circuits_folder(Path(run)), NAME))
    task, plain = sc.get_task(NAME, model.tokenizer), sc.get_task(NAME + PLAIN, model.tokenizer)
    whole = fitted(model, training_pairs(task))

    def tried(batch: PairBatch) -> list[tuple[np.ndarray, np.ndarray]]:
        """Losses and which are right, of the whole model and of the circuit."""
        correct = correct_of(batch)
        runs = (whole(all_candidate_logits(model, batch)), circuit_logits(model, circuit, batch))
        return [
            (
                torch.nn.functional.cross_entropy(x, correct, reduction="none").numpy(),
                (x.argmax(dim=1) == correct).numpy(),
            )
            for x in runs
        ]

    def show(what: str, found: list[tuple[np.ndarray, np.ndarray]], rows: np.ndarray | slice = slice(None)) -> None:
        (a, b), (c, d) = ((loss[rows].mean(), right[rows].mean()) for loss, right in found)
        print(f"{what} | whole model {a:.3f}, {b:.3f} | circuit {c:.3f}, {d:.3f}")

    print("loss and accuracy")
    rng = random.Random(0)
    for n in range(5):
        calls = list(after_calls(plain.draw("held_out", 256, 0), n, rng))
        show(f"{n} closed calls before", tried(plain.encode(calls)))
    pairs = task.draw("held_out", PAIRS, 0)
    both = [pair for pair in pairs if {"'", '"'} <= set(pair.left[: pair.left.rfind("'")])]
    show(f"quotes of both kinds before ({len(both)} pairs)", tried(task.encode(both)))
    batch = task.encode(pairs)
    names = [model.tokenizer.token(i) for i in range(model.config.vocab_size)]
    holds = {quote: np.array([quote in name for name in names]) for quote in ("'", '"')}
    quoted = holds["'"] | holds['"']
    since = np.array(
        [last - np.nonzero(quoted[row[: last + 1]])[0][-1] for row, last in zip(batch.tokens, batch.last, strict=True)]
    )
    found = tried(batch)
    for low, high in itertools.pairwise(DISTANCES):
        rows = (since >= low) & (since < high)
        show(f"{low} tokens and more since the quote ({rows.sum()} prompts)", found, rows)
    channels(model, circuit, batch, holds | {"others": ~quoted})


def channels(model: sc.SparseTransformer, circuit: Circuit, batch: PairBatch, kinds: dict[str, np.ndarray]) -> None:
    """Means of the circuit's keys and values by kind of token (masks over the vocabulary); slopes over positions."""
    tokens, last = torch.from_numpy(batch.tokens), torch.from_numpy(batch.last)
    with torch.no_grad(), sc.record(model, r"\d+\.attn\.[qkv]") as seen:
        model(tokens)
    there = torch.arange(tokens.shape[1]) <= last[:, None]
    rows_of = {kind: torch.from_numpy(mask)[tokens] & there for kind, mask in kinds.items()}
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    for node in circuit.nodes:
        site = node.name.rsplit(".", 1)[0]
        if site not in seen or site.endswith("q"):
            continue
        values = seen[site][..., node.index]
        means = ", ".join(f"{name} {values[rows].mean():.2f}" for name, rows in rows_of.items())
        others = rows_of["others"]
        slope = np.polyfit(place[others].numpy(), values[others].numpy(), 1)[0]
        query = seen[site[:-1] + "q"][torch.arange(len(last)), last, node.index]
        asked = f"; query {query.mean():.2f} ± {query.std():.2f}" if site.endswith("k") else ""
        print(f"{node.name}: {means}; {slope:+.4f} a token{asked}")


if __name__ == "__main__":
    main(sys.argv[1])
