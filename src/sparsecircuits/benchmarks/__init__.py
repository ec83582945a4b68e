"""Benchmarks: ours and a named baseline in turn, in one run, medians and their ratio.

sparsecircuits bench               all of them
sparsecircuits bench abstopk --json

Where there is a GPU, its cases follow those of the CPU.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sparsecircuits.benchmarks.timing import Case as Case
from sparsecircuits.benchmarks.timing import Race as Race
from sparsecircuits.kernels import abstopk, project_topk_, sparse_linear, use
from sparsecircuits.kernels.attention import fused_attention
from sparsecircuits.training.config import TrainConfig, dense_twin, preset
from sparsecircuits.training.hardware import keep_freed_memory


def run_benchmarks(
    name: str | None,
    rounds: int | None = None,
    update: Callable[[float, str], None] | None = None,
    *,
    full: bool = False,
) -> list[dict[str, Any]]:
    """Rows of the contract: case, ours_ms, baseline, baseline_ms, ratio = baseline / ours (medians); and
    gb_per_s, what ours moves, where memory should bound it. rounds: by default `ROUNDS`, of those in `FULL` fewer.
    full: all cases of those that take minutes (`FULL`)."""
    keep_freed_memory()
    torch.manual_seed(0)
    makers = {**BENCHMARKS, **FULL} if full else BENCHMARKS
    made = ((key, case) for key, make in makers.items() if name in (None, key) for case in make())
    rows, known = [], [key for key in BENCHMARKS if name in (None, key)]
    for key, case in made:
        if update is not None:
            update(known.index(key) / len(known), case.name)
        rows += case.rows(rounds or (FEW_ROUNDS if key in FULL and not full else ROUNDS))
    return rows


class _Replay:
    """A function on the GPU as a captured graph: a few hundred microseconds of work are timed without the
    host's cost of launching them."""

    def __init__(self, function: Callable[[], object]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.kept = function()

    def __call__(self) -> None:
        self.graph.replay()


def _abstopk_cases() -> Iterator[Case]:
    for rows, width in ((4096, 256), (4096, 1024)):
        x, k = torch.randn(rows, width), width // 4

        yield Case(
            f"AbsTopK {rows}x{width}, k = 1/4, float32, CPU",
            partial(abstopk, x, k),
            "torch.topk + scatter",
            partial(_plain_abstopk, x, k),
        )
    if torch.cuda.is_available():
        wide, k = torch.randn(65_536, 2048, dtype=torch.bfloat16, device="cuda"), 512
        yield Case(
            "AbsTopK 65536x2048, k = 1/4, bfloat16, CUDA",
            _Replay(partial(abstopk, wide, k)),
            "torch.topk + scatter",
            partial(_plain_abstopk, wide, k),
            bytes_moved=2 * wide.nbytes + wide.numel() // 8,
        )


def _project_copy(weight: torch.Tensor, k: int, floor: int = 0) -> torch.Tensor:
    return project_topk_(weight.clone(), k, floor)


def _plain_project_copy(weight: torch.Tensor, k: int) -> torch.Tensor:
    return _plain_project(weight.clone(), k)


def _project_cases() -> Iterator[Case]:
    for density in (0.02, 0.3):
        weight, k = torch.randn(1024, 1024), int(density * 1024 * 1024)

        yield Case(
            f"projection of 1M weights to {density:.0%}, no floor, CPU",
            partial(_project_copy, weight, k),
            "torch.kthvalue + mask",
            partial(_plain_project_copy, weight, k),
        )
    if torch.cuda.is_available():
        large = torch.randn(4096, 4096, device="cuda")
        k = large.numel() // 50
        for floor in (0, 4):
            yield Case(
                f"projection of 16M weights to 2%, floor {floor}, CUDA",
                _Replay(partial(_project_copy, large, k, floor)),
                "torch.kthvalue + mask, no floor",
                partial(_plain_project_copy, large, k),
            )


def _sparse_linear_cases() -> Iterator[Case]:
    for density in (0.01, 0.02, 0.12):
        x, weight = torch.randn(4096, 256), torch.randn(1024, 256)
        project_topk_(weight, int(density * weight.numel()))
        yield Case(
            f"linear 256 -> 1024 at {density:.0%}, 4096 tokens, CPU",
            partial(sparse_linear, x, weight),
            "dense product",
            partial(F.linear, x, weight),
        )


class TrainingSteps:
    """Training steps of a preset on random tokens, without a corpus: as many as from one dense gradient to the
    next."""

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        from pathlib import Path

        from sparsecircuits.data import TokenData, Tokenizer
        from sparsecircuits.training.loop import _Run

        ids = np.random.default_rng(0).integers(0, 2048, 200_000).astype(np.uint16)
        tokens = TokenData(train=ids, val=ids[:5000], manifest={}, cached=False)
        self.count = config.sparsity.regrow_every
        """Steps of one call."""
        self.run = _Run(config, Path("unused"), tokens, Tokenizer.default(), torch.device(device))

    def __call__(self) -> None:
        for _ in range(self.count):
            self.run._take_step(0.75)
            self.run.step += 1


class _PlainStep(TrainingSteps):
    """The same step as anyone would write it in PyTorch: torch.topk, dense products, its own attention and
    cross-entropy, a threshold by torch.kthvalue (and no floor)."""

    def __call__(self) -> None:
        with plain_pytorch():
            super().__call__()


def plain_pytorch(floor: bool = False) -> contextlib.AbstractContextManager[None]:
    """While open, models and training use plain PyTorch in place of every kernel of ours.

    floor: keep the floor of nonzeros a row too, which nobody's one-line threshold does.
    """
    plain = {name: function for name, function in _PLAIN.items() if not (floor and name == "project_topk_")}
    return use("reference", **plain)


def _plain_abstopk(x: torch.Tensor, k: int) -> torch.Tensor:
    kept = x.abs().topk(k, dim=-1, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))


def _plain_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    table: torch.Tensor,
    ids: torch.Tensor,
    held: None,
) -> torch.Tensor:
    return F.cross_entropy(F.linear(hidden, weight, bias) + F.embedding(ids, table), targets)


def _plain_project(weight: torch.Tensor, k: int, floor: int = 0, dim: int = 1) -> torch.Tensor:
    threshold = weight.abs().flatten().kthvalue(weight.numel() - k + 1).values
    return weight.mul_(weight.abs() >= threshold)


_PLAIN: dict[str, Callable[..., Any]] = {
    "abstopk": _plain_abstopk,
    "gelu_abstopk": lambda x, k: _plain_abstopk(F.gelu(x), k),
    "causal_attention": fused_attention,
    "linear_cross_entropy": _plain_cross_entropy,
    "project_topk_": _plain_project,
}
"""Where anyone would write something faster than the definition, or less exact."""


def _step_config(name: str, batch: int, layers: int | None = None) -> TrainConfig:
    config = preset(name)
    model = config.model if layers is None else replace(config.model, n_layer=layers)
    lasting = replace(config, tokens=None, steps=1000, dtype="float32", bigram_init="uniform")
    return replace(lasting, model=model, batch_size=batch)


def _regrowing(config: TrainConfig, every: int) -> TrainConfig:
    return replace(config, sparsity=replace(config.sparsity, regrow_every=every))


def _train_step_cases() -> Iterator[Case]:
    """Steps of the presets, with a dense gradient at each and with one in every 8; of the large ones, as many layers
    as their dense twin has the time for."""
    for name, batch, layers in (("nano", 16, None), ("micro", 4, None), ("small", 4, 2), ("paper", 4, 1)):
        config = _step_config(name, batch, layers)
        dense = TrainingSteps(dense_twin(_regrowing(config, 1)))
        cut = "" if layers is None else f"{layers} layers, "
        case = f"training step, {name}, {cut}{batch} sequences, {config.sparsity.density:.2g} nonzero, CPU"
        for every in (1, 8, 32):
            step = TrainingSteps(_regrowing(config, every))
            yield Case(f"{case}, dense gradient every {every}", step, "dense step", dense, times=every)
    config = _regrowing(_step_config("nano", 16), 1)
    yield Case("training step, nano, CPU", TrainingSteps(config), "plain PyTorch sparse step", _PlainStep(config))
    if torch.cuda.is_available():
        small = preset("small")
        config = replace(small, model=replace(small.model, d_model=1024), steps=1000, dtype="bfloat16")
        case = f"training step, d_model 1024, {config.batch_size} sequences, bfloat16, CUDA"
        step = TrainingSteps(config, "cuda")
        yield Case(case, step, "dense step", TrainingSteps(dense_twin(config), "cuda"))


SCALE = {
    **dict.fromkeys((128, 256, 512), (1.0, 0.1, 0.02, 0.01)),
    **dict.fromkeys((1024, 2048), (0.02, 1 / 256)),
}
"""Densities to measure at each width."""


def _train_scale_cases() -> Iterator[Case]:
    """A step's cost over width and density, amortised over nano's steps from one dense gradient to the next: 8
    sequences of 128 tokens, 2 layers (1 above a width of 512); the baseline is dense.

    Density 1 keeps AbsTopK and drops only the zeros, so its row shows what the activations' sparsity costs.
    The floor shrinks where a row of the narrow models has no room for four nonzeros.
    """
    for width, densities in SCALE.items():
        nano, layers = preset("nano"), 1 if width > 512 else 2
        model = replace(nano.model, d_model=width, n_layer=layers)
        base = replace(nano, model=model, batch_size=8, steps=1000, dtype="float32", bigram_init="uniform")
        every = base.sparsity.regrow_every
        dense = TrainingSteps(dense_twin(_regrowing(base, 1)))
        for density in densities:
            sparsity = replace(base.sparsity, density=density, floor=min(base.sparsity.floor, int(density * width)))
            step = TrainingSteps(replace(base, sparsity=sparsity))
            case = f"training step, d_model {width}, {layers} layers, {density:.2%} nonzero, CPU"
            yield Case(case, step, "dense step", dense, times=every)


def _decode_races(full: bool) -> Iterator[Race]:
    from sparsecircuits.benchmarks.inference import decode_races

    return decode_races(full)


def _prefill_races(full: bool) -> Iterator[Race]:
    from sparsecircuits.benchmarks.inference import prefill_races

    return prefill_races(full)


def _decode_scale_races() -> Iterator[Race]:
    from sparsecircuits.benchmarks.inference import decode_scale_races

    return decode_scale_races()


BENCHMARKS: dict[str, Callable[[], Iterator[Case | Race]]] = {
    "abstopk": _abstopk_cases,
    "project": _project_cases,
    "sparse-linear": _sparse_linear_cases,
    "train-step": _train_step_cases,
    "train-scale": _train_scale_cases,
    "decode": partial(_decode_races, False),
    "prefill": partial(_prefill_races, False),
    "decode-scale": _decode_scale_races,
}
FULL: dict[str, Callable[[], Iterator[Case | Race]]] = {
    "decode": partial(_decode_races, True),
    "prefill": partial(_prefill_races, True),
}
"""Those that leave cases out by default (`inference.LEFT_OUT`), with all of these."""
ROUNDS, FEW_ROUNDS = 15, 5
"""Interleaved rounds by default; of a benchmark that leaves cases out."""
