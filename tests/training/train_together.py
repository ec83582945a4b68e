"""Run by torchrun (test_distributed): train one model in several processes, several ways.

Arguments: a folder for the runs, a corpus, and for each run NAME=FIELDS (TrainConfig fields as JSON) or
NAME=resume; "shards" projects matrices across the processes (see project_shards). Fails unless all processes end with
the same model, bit by bit.
"""

import dataclasses
import json
import sys
from pathlib import Path

import project_shards

import sparsecircuits as sc
from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import content_hash
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.config import OptimizerConfig, TrainConfig
from sparsecircuits.training.distributed import joined

# 3 heads and 10 sequences: nothing divides by the number of processes. Position tables are frozen.
CONFIG = TrainConfig(
    model=ModelConfig(
        n_ctx=32, n_layer=2, d_model=24, d_head=8, sink=True, offsets=3, positions="concat_sinusoidal", d_pos_emb=4
    ),
    sparsity=SparsityConfig(density=0.1, floor=2, anneal_end=0.35, sparse_biases=True, regrow_every=3),
    optimizer=OptimizerConfig(lr=1e-2),
    batch_size=10,
    steps=8,
    seed=1,  # of those where no near tie of a top-k tips when sums are taken in another order
    dtype="float32",
    log_every=2,
    eval_every=4,
    eval_tokens=1024,
    checkpoint_every=4,
    keep_checkpoints=4,
)


def config_of(fields):
    """CONFIG with other fields; those of its sparsity and its optimizer in objects of their own."""
    parts = {
        name: dataclasses.replace(getattr(CONFIG, name), **fields.pop(name, {})) for name in ("sparsity", "optimizer")
    }
    return dataclasses.replace(CONFIG, **parts, **fields)


def main():
    out, corpus, *runs = sys.argv[1:]
    with joined() as world:
        tokens = world.first_here(lambda: prepare_tokens(corpus, Tokenizer.default()))
        for run in runs:
            if run == "shards":
                project_shards.check(world)
                continue
            name, fields = run.split("=", 1)
            config = CONFIG if fields == "resume" else config_of(json.loads(fields))
            model = sc.train(config, Path(out) / name, tokens=tokens, resume=fields == "resume")
            world.require_same(content_hash(model), f"{name}: the replicas differ")
        print("done", world.rank)


if __name__ == "__main__":
    main()
