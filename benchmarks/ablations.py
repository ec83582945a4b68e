"""Ablations of training at nano scale: validation loss of variants that differ in one setting, at equal tokens.

    python benchmarks/ablations.py --steps 600 --seeds 3

Each variant is trained with each seed on the same text and judged on the same validation tokens. Writes one JSON line a
run to --out as it goes (runs that are there already are skipped, so it can be stopped and called again) and prints
the table at the end.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import sparsecircuits as sc
from records import add_record, read_records
from sparsecircuits.benchmarks import plain_pytorch
from sparsecircuits.errors import UserError
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.training.config import TrainConfig, dense_twin, preset

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "warmup none": {"optimizer": {"warmup": 0.0}},
    "warmup 5%": {"optimizer": {"warmup": 0.05}},
    "gradient clipped, eps 1e-8": {"optimizer": {"gradient": "clip", "eps": 1e-8, "lr": 3e-3}},
    "gradient clipped": {"optimizer": {"gradient": "clip"}},
    "gradient as it is": {"optimizer": {"gradient": "none"}},
    "no sharkfin": {"optimizer": {"sharkfin": False}},
    "no anneal": {"sparsity": {"anneal": "linear", "anneal_start": 0.0, "anneal_end": 0.0}},
    **{f"anneal to {share}%": {"sparsity": {"anneal_end": share / 100}} for share in (10, 25, 75)},
    "linear anneal": {"sparsity": {"anneal": "linear"}},
    "start erk": {"sparsity": {"start": "erk"}, "optimizer": {"lr": 4e-2}},
    "start uniform": {"sparsity": {"start": "uniform"}, "optimizer": {"lr": 4e-2}},
    **{f"k = {k}": {"sparsity": {"regrow_every": k}} for k in (1, 4, 8, 16, 32, 128)},
    "k = never": {"sparsity": {"regrow_every": 1_000_000}},
    "start uniform, compact": {"sparsity": {"start": "uniform", "state": "compact"}, "optimizer": {"lr": 4e-2}},
    "revived every 200": {"sparsity": {"revive_every": 200}},
    "no floor": {"sparsity": {"floor": 0}},
    "floor 1": {"sparsity": {"floor": 1}},
    "floor 2": {"sparsity": {"floor": 2}},
    "plain PyTorch, no kernels": {},
    "dense": {},
}


def config_of(variant: str, seed: int, steps: int, data: str) -> TrainConfig:
    """nano with the variant's settings."""
    config = dataclasses.replace(
        preset("nano"), data=data, steps=steps, seed=seed, eval_every=steps, checkpoint_every=steps, dtype="float32"
    )
    for part, fields in VARIANTS[variant].items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})
    return dense_twin(config) if variant == "dense" else config


def run(variant: str, seed: int, steps: int, data: str) -> dict[str, Any]:
    """Train once; the record says the validation loss in nats per token, or where the run diverged."""
    config, started = config_of(variant, seed, steps, data), time.perf_counter()
    record = {"variant": variant, "seed": seed, "steps": steps, "data": data}
    plain = plain_pytorch(floor=True) if "plain" in variant else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, plain:
        try:
            sc.train(config, Path(folder) / "run")
        except UserError as error:
            return {**record, "val_loss": None, "words": str(error)}
        lines = [
            json.loads(line)
            for line in (Path(folder) / "run" / METRICS_NAME).read_text(encoding="utf-8").strip().split("\n")
        ]
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    return {**record, "val_loss": losses[-1], "seconds": round(time.perf_counter() - started, 1)}


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row a variant."""
    lines = ["| variant | seeds | validation loss | each | seconds, median |", "|---|---|---|---|---|"]
    for variant in VARIANTS:
        found = [record["val_loss"] for record in records if record["variant"] == variant]
        losses = [loss for loss in found if loss is not None]
        if found:
            mean = f"{statistics.mean(losses):.3f}" if losses else "-"
            each = ", ".join("diverged" if loss is None else f"{loss:.3f}" for loss in found)
            seconds = [r["seconds"] for r in records if r["variant"] == variant and "seconds" in r]
            took = f"{statistics.median(seconds):.0f}" if seconds else "-"
            lines.append(f"| {variant} | {len(found)} | {mean} | {each} | {took} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--out", type=Path, default=Path("ablations.jsonl"))
    arguments = parser.parse_args()
    records = read_records(arguments.out, steps=arguments.steps, data=arguments.data)
    done = {(record["variant"], record["seed"]) for record in records}
    for seed in range(arguments.seeds):
        for variant in arguments.only:
            if (variant, seed) not in done:
                records.append(run(variant, seed, arguments.steps, arguments.data))
                add_record(arguments.out, records[-1])
    print(table(records))


if __name__ == "__main__":
    main()
