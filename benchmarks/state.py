"""What training of the paper's shape keeps in memory between two steps, and that its loss falls.

python benchmarks/state.py [STEPS] [dense]

The preset `paper` (8 layers, d_model 2048, 1.8 million nonzeros) on the standard library, 2 sequences of 256 tokens a
step, sparse from the start, weights that come back every 8th step; state compact, or dense (which takes 8 GB). Every
tensor that is alive between two steps is counted; the bigram table, its gradient and moments are a line of their own.
"""

import gc
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from sparsecircuits.data import Tokenizer, prepare_tokens
from sparsecircuits.kernels import warm_up
from sparsecircuits.training.config import TrainConfig, preset
from sparsecircuits.training.hardware import keep_freed_memory
from sparsecircuits.training.loop import _Run

MB = 1e-6


def paper(state: str, steps: int) -> TrainConfig:
    """The preset at the batch of a small machine."""
    config = preset("paper")
    sparsity = replace(config.sparsity, start="uniform", state=state, regrow_every=8)
    return replace(config, sparsity=sparsity, data="stdlib", tokens=None, steps=steps, batch_size=2, dtype="float32")


def alive() -> list[torch.Tensor]:
    """All tensors, gradients included."""
    gc.collect()
    found = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    return found + [x.grad for x in found if x.is_leaf and x.grad is not None]


def size(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of their storages, each counted once."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


def main(steps: int, state: str) -> None:
    """Take the steps, a line each."""
    keep_freed_memory()
    config = paper(state, steps)
    tokenizer = Tokenizer.default()
    run = _Run(config, Path("unused"), prepare_tokens(config.data, tokenizer), tokenizer, torch.device("cpu"))
    warm_up()
    losses, most = [], 0
    for _ in range(steps):
        began = time.perf_counter()
        losses.append(run._take_step(run._progress())[0])
        run.step += 1
        taken = time.perf_counter() - began
        tensors = alive()
        table = run.model.get_parameter("bigram.weight")
        own = [table, table.grad, *(run.adam.state[table][key] for key in ("exp_avg", "exp_avg_sq"))]
        beside = size(x for x in own if x is not None)
        most = max(most, size(tensors) - beside)
        print(
            f"step {run.step:3}  loss {losses[-1]:.4f}  {taken:6.2f} s  "
            f"{MB * (size(tensors) - beside):7.1f} MB between steps, {MB * beside:5.1f} MB of the bigram table beside",
            flush=True,
        )
        del tensors, own
    nonzeros = run.engine.nonzeros() + (0 if run.held is None else run.held.apart)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{nonzeros:,} nonzeros, state {state}: at most {MB * most:,.1f} MB of weights, gradients and optimizer state "
        f"beside the bigram table; loss {losses[0]:.3f} -> {losses[-1]:.3f}; the process's peak {MB * peak:,.0f} MB"
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(next(filter(str.isdigit, arguments), "20")), "dense" if "dense" in arguments else "compact")
