"""Decode and prefill of random models of the paper's shape, against what one would run them with otherwise."""

import copy
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsecircuits.benchmarks.timing import Race
from sparsecircuits.inference.cache import SparseCache
from sparsecircuits.inference.runtime import Dtype, SparseRuntime
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.models.storage import Stored, build, shell
from sparsecircuits.models.transformer import KVCache, SparseTransformer, sparse_matrices
from sparsecircuits.plans.nonzeros import Nonzeros
from sparsecircuits.plans.plan import Plan

PAPER = 1.9e6
"""Nonzeros of the paper's models of 475M parameters (its second smallest L0)."""
DENSITIES = (1 / 1000, 1 / 250, 1 / 64, 1 / 16)
CONTEXT, PROMPT = 64, 256  # tokens that a decoded one sees; tokens of a prompt
LEFT_OUT = {
    "decode": "densities 1/1000, 1/250, 1/64 and 1/16, dense float32, Hugging Face, bfloat16 weights, where dense wins",
    "prefill": "densities 1/1000, 1/250, 1/64 and 1/16",
}
"""What benchmarks do without unless they are to be full."""
RUN = 16  # tokens in a row: decoding is a loop, and what it needs stays in the processor's cache if it fits
LONG = 1 << 29  # bytes that the machine's bandwidth is measured on: far more than any cache holds


def random_weights(config: ModelConfig, density: float, seed: int = 0) -> dict[str, Tensor | Stored]:
    """Random weights with a share of nonzeros, scaled so that activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor | Stored] = {}
    like_it = shell(config, config.n_layer, "the benchmark")
    matrices = sparse_matrices(like_it)
    for name, like in like_it.state_dict().items():
        shape = tuple(like.shape)
        if name in matrices:
            places = torch.rand(int(shape[0] * shape[1] * density), generator=generator).double()
            places = (places * (shape[0] * shape[1] - 1)).long().unique()
            scale = (0.3 if name.endswith("c_proj.weight") else 1.0) / math.sqrt(max(1.0, shape[1] * density / 4))
            found[name] = Stored(shape, places, scale * torch.randn(len(places), generator=generator))
        else:
            is_norm = like.dim() == 1 and "ln_" in name
            found[name] = torch.ones(shape) if is_norm else 0.02 * torch.randn(shape, generator=generator)
    return found


def parameters(config: ModelConfig) -> int:
    """Entries of the sparse matrices."""
    return sum(p.numel() for p in sparse_matrices(shell(config, config.n_layer, "the benchmark")).values())


def dense_model(config: ModelConfig, weights: dict[str, Tensor | Stored]) -> SparseTransformer:
    """The model itself."""
    state = {name: part.dense() if isinstance(part, Stored) else part for name, part in weights.items()}
    return build(config, state, "the benchmark").eval()


class _Listed(nn.Module):
    """A layer as one would write it over a sparse matrix of a library: multiply(x [n, in]) -> [n, out]."""

    def __init__(self, multiply: Callable[[Tensor], Tensor], bias: Tensor | None) -> None:
        super().__init__()
        self.multiply, self.bias = multiply, bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def _torch_csr(matrix: Nonzeros) -> Callable[[Tensor], Tensor]:
    starts, columns, values = map(torch.from_numpy, (matrix.starts(), matrix.columns.astype(np.int64), matrix.values))
    sparse = torch.sparse_csr_tensor(starts, columns, values, size=matrix.shape, check_invariants=False)

    def multiply(x: Tensor) -> Tensor:
        if len(x) == 1:
            return torch.mv(sparse, x[0])[None]
        return (sparse @ x.T).T

    return multiply


def _scipy_csr(matrix: Nonzeros) -> Callable[[Tensor], Tensor]:
    from scipy.sparse import csr_matrix  # type: ignore[import-not-found,unused-ignore]

    sparse = csr_matrix((matrix.values, matrix.columns, matrix.starts()), shape=matrix.shape)
    return lambda x: torch.from_numpy(np.ascontiguousarray((sparse @ x.numpy().T).T))


def listed_model(
    config: ModelConfig, weights: dict[str, Tensor | Stored], make: Callable[[Nonzeros], Callable[[Tensor], Tensor]]
) -> SparseTransformer:
    """The model with a library's sparse matrices in its layers."""
    model = shell(config, config.n_layer, "the benchmark").eval()
    model.load_state_dict({n: t for n, t in weights.items() if isinstance(t, Tensor)}, strict=False, assign=True)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            layer = _Listed(make(Nonzeros.of(weights[f"{name}.weight"])), module.bias)
            setattr(model.get_submodule(parent), child, layer)
    model.wte.held = Nonzeros.of(weights["wte.weight"]).held()
    unembedding = model.lm_head
    bigram = model.bigram

    def unembed(hidden: Tensor, ids: Tensor) -> Tensor:
        logits: Tensor = unembedding(hidden) + model.logit_bias
        return logits if bigram is None else logits + bigram(ids)

    model.unembed = unembed  # type: ignore[assignment,method-assign]
    return model


def _listed_models(config: ModelConfig, weights: dict[str, Tensor | Stored]) -> dict[str, SparseTransformer]:
    makers = {"torch CSR": _torch_csr}
    if importlib.util.find_spec("scipy"):
        makers["SciPy CSR"] = _scipy_csr
    return {name: listed_model(config, weights, make) for name, make in makers.items()}


@torch.inference_mode()
def _next(model: SparseTransformer, ids: Tensor, cache: KVCache) -> None:
    """RUN tokens with a cache, which stays what it was."""
    again = KVCache(list(cache.keys), list(cache.values))
    for column in ids[:, -RUN:].split(1, dim=1):
        model.last_logits(column, torch.zeros(1, dtype=torch.long), again)


def _decoder(model: SparseTransformer, ids: Tensor) -> Callable[[], None]:
    cache = KVCache.empty(model.config.n_layer)
    with torch.inference_mode():
        model.last_logits(ids[:, :-RUN], torch.tensor([ids.shape[1] - RUN - 1]), cache)
    return partial(_next, model, ids, cache)


def _runtime_decoder(runtime: SparseRuntime, ids: Tensor) -> Callable[[], None]:
    cache = runtime.empty_cache()
    assert isinstance(cache, SparseCache)
    runtime.last_logits(ids[:, :-RUN], torch.tensor([ids.shape[1] - RUN - 1]), cache)

    def run() -> None:
        for column in ids[:, -RUN:].unbind(dim=1):
            runtime.step(column, cache)
        cache.lengths -= RUN

    return run


@torch.inference_mode()
def _read(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model.last_logits(ids, torch.full((len(ids),), ids.shape[1] - 1))
    return found


def bandwidth() -> float:
    """Bytes a second that one pass over memory reads, the best of five."""
    data = torch.ones(LONG // 4)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - start)
    return LONG / best


def bytes_of_step(runtime: SparseRuntime, context: int) -> int:
    """What a token must read: indices and values of the columns whose input is not zero, biases and norms, a row of the
    bigram table, the channels of keys where the query is not zero, the values that were kept."""
    assert runtime._decoder is not None
    config, packed = runtime.config, runtime._decoder.packed
    entry, index = packed.bytes_a_nonzero, packed.rows.itemsize
    total = 0.0
    for layer in range(config.n_layer):
        for target, source in (
            ("attn.q", "attn.act_in"), ("attn.k", "attn.act_in"), ("attn.v", "attn.act_in"),
            ("mlp.post_act", "mlp.act_in"), ("mlp.resid_delta", "mlp.post_act"),
        ):  # fmt: skip
            k = config.abstopk_k(source)
            share = 1.0 if k is None else k / config.site_width(source)
            total += share * entry * len(runtime.plan.products[f"{layer}.{target}"].matrix)
        total += (entry + index) * len(runtime.plan.products[f"{layer}.attn.resid_delta"].matrix)
        kept = [config.abstopk_k(f"attn.{name}") or config.attn_width for name in "qv"]
        total += context * (4 * kept[0] + (4 + index) * kept[1])
    total += (entry + index) * len(runtime.plan.unembedding)
    total += packed.flat.nbytes + (4 * config.vocab_size if config.bigram != "none" else 0)
    return int(total)


def _weight_name(density: float, nonzeros: int) -> str:
    return f"1/{1 / density:.0f} nonzero ({nonzeros / 1e6:.3g}M)"


def decode_races(full: bool = True) -> Iterator[Race]:
    """A token after 64 to 79 others, at the paper's shape: 8 layers, d_model 2048, vocabulary 2048. full: also what
    `LEFT_OUT` names."""
    config = ModelConfig()
    paper = PAPER / parameters(config)
    ids = torch.randint(config.vocab_size, (1, CONTEXT + RUN), generator=torch.Generator().manual_seed(0))
    weights = random_weights(config, paper)
    dense = dense_model(config, weights)
    half = copy.deepcopy(dense).to(torch.bfloat16)
    whole = {"dense bf16": _decoder(half, ids)}
    if full:
        whole = {"dense float32": _decoder(dense, ids), **whole}
    peak = bandwidth()
    for density in (paper, *DENSITIES) if full else (paper,):
        here = weights if density == paper else random_weights(config, density)
        plan = Plan.of_weights(config, here)
        listed = {name: _decoder(model, ids) for name, model in _listed_models(config, here).items()}
        others: dict[str, Callable[[], object]] = {**whole, **listed}
        less: dict[str, Callable[[], object]] = {}
        if full and density == paper:
            hugging = _hugging_face(dense, ids)
            if hugging is not None:
                name = "Hugging Face generate, float32"
                others[name], less[name] = hugging
        dtypes: tuple[Dtype, ...] = ("float32", "bfloat16") if full and density == paper else ("float32",)
        for dtype in dtypes:
            runtime = SparseRuntime(plan, dtype=dtype, threads=1)
            name = f"decode, paper's shape, {_weight_name(density, runtime.nonzeros)}, {dtype}, CPU"
            yield Race(name, _runtime_decoder(runtime, ids), others, partial(_shares, runtime, peak), less, RUN)
    del dense, half, whole, others, less
    if full:
        yield from _crossover_races()


def _hugging_face(model: SparseTransformer, ids: Tensor) -> tuple[Callable[[], object], Callable[[], object]] | None:
    """generate of RUN + 1 tokens and of one: the difference is RUN tokens with a cache."""
    if not importlib.util.find_spec("transformers"):
        return None
    from sparsecircuits.interop.huggingface_export import to_hf

    converted: Any = to_hf(model)
    mask = torch.ones_like(ids)

    def run(count: int) -> object:
        with torch.inference_mode():
            return converted.generate(
                ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
            )

    return partial(run, RUN + 1), partial(run, 1)


def _shares(runtime: SparseRuntime, peak: float, ours_ms: float) -> dict[str, Any]:
    moved = bytes_of_step(runtime, CONTEXT + RUN // 2)
    return {
        "mb_moved": round(moved / 1e6, 2),
        "machine_gb_per_s": round(peak / 1e9, 1),
        "share_of_bandwidth": round(moved / peak / (ours_ms / 1e3), 3),
    }


def _crossover_races() -> Iterator[Race]:
    """One layer of the paper's, from a sixteenth of nonzeros up: where dense wins."""
    config = replace(ModelConfig(), n_layer=1)
    ids = torch.randint(config.vocab_size, (1, CONTEXT + RUN), generator=torch.Generator().manual_seed(0))
    for density in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
        weights = random_weights(config, density)
        dense = dense_model(config, weights)
        others = {"dense float32": dense, "dense bf16": copy.deepcopy(dense).to(torch.bfloat16)}
        runtime = SparseRuntime(Plan.of_weights(config, weights), threads=1)
        name = f"decode, one layer of the paper's shape, {_weight_name(density, runtime.nonzeros)}, float32, CPU"
        yield Race(
            name,
            _runtime_decoder(runtime, ids),
            {name: _decoder(other, ids) for name, other in others.items()},
            times=RUN,
        )


def prefill_races(full: bool = True) -> Iterator[Race]:
    """A prompt of 256 tokens at the paper's shape, logits after its last token. full: also other densities."""
    config = ModelConfig()
    paper = PAPER / parameters(config)
    ids = torch.randint(config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    weights = random_weights(config, paper)
    dense = dense_model(config, weights)
    half = copy.deepcopy(dense).to(torch.bfloat16)
    for density in (paper, *DENSITIES) if full else (paper,):
        here = weights if density == paper else random_weights(config, density)
        listed = _listed_models(config, here)
        models = {"dense float32": dense, "dense bf16": half, **listed}
        runtime = SparseRuntime(Plan.of_weights(config, here))
        name = f"prefill of {PROMPT} tokens, paper's shape, {_weight_name(density, runtime.nonzeros)}, float32, CPU"
        yield Race(
            name, partial(_read, runtime, ids), {key: partial(_read, model, ids) for key, model in models.items()}
        )


def decode_scale_races() -> Iterator[Race]:
    """Decode against nonzeros at one width, and against width at one number of nonzeros: 8 layers, a torch CSR loop
    beside."""
    for width, nonzeros in (
        *((2048, n) for n in (0.25e6, 0.5e6, 1e6, 2e6, 4e6, 8e6)),
        *((w, 1e6) for w in (256, 512, 1024, 4096)),
    ):
        config = replace(ModelConfig(), d_model=width, bigram="none")
        ids = torch.randint(config.vocab_size, (1, CONTEXT + RUN), generator=torch.Generator().manual_seed(0))
        weights = random_weights(config, nonzeros / parameters(config))
        runtime = SparseRuntime(Plan.of_weights(config, weights), threads=1)
        models = {"torch CSR": listed_model(config, weights, _torch_csr)}
        yield Race(
            f"decode, 8 layers, d_model {width}, {nonzeros / 1e6:g}M nonzeros, CPU",
            _runtime_decoder(runtime, ids),
            {name: _decoder(model, ids) for name, model in models.items()},
            times=RUN,
        )
