"""Ablations of training at nano scale: validation loss of variants that differ in one setting, at equal tokens.

    python benchmarks/ablations.py --steps 600 --seeds 3

Each variant is trained with each seed on stdlib and judged on the same validation tokens. Writes one JSON line a
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
    "anneal to 25%": {"sparsity": {"anneal_end": 0.25}},
    "anneal to 75%": {"sparsity": {"anneal_end": 0.75}},
    "linear anneal": {"sparsity": {"anneal": "linear"}},
    "no floor": {"sparsity": {"floor": 0}},
    "floor 1": {"sparsity": {"floor": 1}},
    "floor 2": {"sparsity": {"floor": 2}},
    "plain PyTorch, no kernels": {},
    "dense": {},
}


def config_of(variant: str, seed: int, steps: int) -> TrainConfig:
    """nano on stdlib with the variant's settings."""
    config = dataclasses.replace(
        preset("nano"), data="stdlib", steps=steps, seed=seed, eval_every=steps, checkpoint_every=steps
    )
    for part, fields in VARIANTS[variant].items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})
    return dense_twin(config) if variant == "dense" else config


def run(variant: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once; the record says the validation loss in nats per token, or where the run diverged."""
    config, started = config_of(variant, seed, steps), time.perf_counter()
    plain = plain_pytorch(floor=True) if "plain" in variant else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, plain:
        try:
            sc.train(config, Path(folder) / "run")
        except UserError as error:
            return {"variant": variant, "seed": seed, "steps": steps, "val_loss": None, "words": str(error)}
        lines = [
            json.loads(line)
            for line in (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").strip().split("\n")
        ]
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    return {
        "variant": variant,
        "seed": seed,
        "steps": steps,
        "val_loss": losses[-1],
        "seconds": round(time.perf_counter() - started, 1),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row a variant."""
    lines = ["| variant | seeds | validation loss | each |", "|---|---|---|---|"]
    for variant in VARIANTS:
        found = [record["val_loss"] for record in records if record["variant"] == variant]
        losses = [loss for loss in found if loss is not None]
        if found:
            mean = f"{statistics.mean(losses):.3f}" if losses else "-"
            each = ", ".join("diverged" if loss is None else f"{loss:.3f}" for loss in found)
            lines.append(f"| {variant} | {len(found)} | {mean} | {each} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--out", type=Path, default=Path("ablations.jsonl"))
    arguments = parser.parse_args()
    records = read_records(arguments.out, steps=arguments.steps)
    done = {(record["variant"], record["seed"]) for record in records}
    for seed in range(arguments.seeds):
        for variant in arguments.only:
            if (variant, seed) not in done:
                records.append(run(variant, seed, arguments.steps))
                add_record(arguments.out, records[-1])
    print(table(records))


if __name__ == "__main__":
    main()
