"""A model at the cost of its nonzeros, for inference on a CPU: one compiled function for a token, the model's own
layers over lists of nonzeros for a prompt.

It computes what the model computes, to float32 rounding. Where two magnitudes differ by less than that at a threshold
of AbsTopK, the two may keep different ones, as any two orders of summation do. Tokens of a model with frozen nodes go
through its own layers too.
"""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.inference.cache import Filling, PlainCache, SparseCache
from sparsecircuits.inference.packing import Decoder
from sparsecircuits.inference.shell import held_model
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.plans.plan import Plan

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

Cache = SparseCache | PlainCache
Dtype = Literal["float32", "bfloat16"]


def compile_sparse(
    model: SparseTransformer, *, dtype: Dtype = "float32", threads: int | None = None
) -> "SparseRuntime":
    """A runtime over a model's nonzeros, as they are now. dtype: what decode reads weights as; sums are float32.
    threads: for batches; by default as many as PyTorch uses."""
    runtime = SparseRuntime(Plan.of_model(model), dtype=dtype, threads=threads)
    runtime.tokenizer, runtime.name = model.tokenizer, model.name
    return runtime


class SparseRuntime:
    """What `compile_sparse` returns. `last_logits` with a cache is what `generate` runs."""

    def __init__(self, plan: Plan, *, dtype: Dtype = "float32", threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads must be at least 1, got {threads}")
        self.config, self.plan, self.dtype = plan.config, plan, dtype
        self.name = "model"
        self.tokenizer: Tokenizer | None = None
        self._threads = threads
        self._decoder = None if plan.config.frozen_nodes else Decoder(plan, dtype)
        self._shell = held_model(plan, dtype)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu")

    @property
    def nonzeros(self) -> int:
        """Weights of the sparse matrices, embedding and unembedding included."""
        return self.plan.nonzeros + len(self.plan.embedding)

    def empty_cache(self, batch: int = 1) -> Cache:
        """A cache for fresh sequences."""
        kind = PlainCache if self.config.frozen_nodes else SparseCache
        return kind.empty(self.config, batch)

    def check_ids(self, input_ids: Tensor, start: int = 0) -> None:
        """Raise UserError for token ids that the model cannot read. start: position of the first one."""
        self._shell.model.check_ids(input_ids, start)

    @torch.inference_mode()
    def __call__(self, input_ids: Int[Tensor, "B T"], cache: Cache | None = None) -> Float[Tensor, "B T V"]:
        """Logits of the next token at each position. cache: continue sequences whose earlier tokens it holds. Raises
        UserError for more than n_ctx tokens or an id outside the vocabulary."""
        if cache is not None and cache.length:
            return torch.stack([self.step(column, cache) for column in input_ids.unbind(dim=1)], dim=1)
        hidden = self._prefill(input_ids, None, cache)
        return self._shell.unembed(hidden, input_ids)

    @torch.inference_mode()
    def last_logits(
        self, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], cache: Cache | None = None
    ) -> Float[Tensor, "B V"]:
        """Logits at one position of each sequence, which ends there: what comes after is padding. With a cache, each
        sequence goes on from its own length."""
        if cache is not None and cache.length:
            ends = set((last + 1).tolist())
            if ends != {input_ids.shape[1]}:
                raise UserError("sequences that go on must all go on by the same number of tokens")
            for column in input_ids.unbind(dim=1):
                logits = self.step(column, cache)
            return logits
        hidden = self._prefill(input_ids, last, cache)
        return self._shell.unembed(hidden, rows_at(input_ids, last))[:, 0]

    @torch.inference_mode()
    def step(self, tokens: Int[Tensor, " B"], cache: Cache) -> Float[Tensor, "B V"]:
        """Logits after one more token of each sequence, which the cache then holds."""
        self.check_ids(tokens[:, None], cache.length)
        if len(tokens) != self._sequences(cache):
            raise UserError(f"{len(tokens)} tokens cannot go on {self._sequences(cache)} sequences")
        if isinstance(cache, PlainCache):
            each = zip(tokens.view(-1, 1, 1), cache.sequences, strict=True)
            hidden = torch.cat([self._shell.model.final_hidden(token, one) for token, one in each])
            return self._shell.unembed(hidden, tokens[:, None])[:, 0]
        assert self._decoder is not None
        cache.fit(cache.length + 1)
        chunks = min(self._threads or torch.get_num_threads(), len(tokens))
        logits = torch.empty(len(tokens), self.config.vocab_size)
        self._decoder(tokens.long().numpy(), cache, logits.numpy(), chunks)
        cache.lengths += 1
        return logits

    def _prefill(self, input_ids: Tensor, last: Tensor | None, cache: Cache | None) -> Float[Tensor, "B S D"]:
        """What the unembedding reads, at all positions or at one of each sequence; its keys and values go into the
        cache."""
        model = self._shell.model
        if cache is not None and len(input_ids) != self._sequences(cache):
            raise UserError(f"{len(input_ids)} sequences do not fit a cache of {self._sequences(cache)}")
        if isinstance(cache, PlainCache):
            ends = [input_ids.shape[1]] * len(input_ids) if last is None else (last + 1).tolist()
            rows = [
                model.final_hidden(ids[None, :end], one)
                for ids, end, one in zip(input_ids, ends, cache.sequences, strict=True)
            ]
            return torch.cat(rows if last is None else [row[:, -1:] for row in rows])
        filling = None
        if cache is not None:
            cache.fit(input_ids.shape[1])
            filling = Filling(cache, last)
        if last is None:
            hidden = model.final_hidden(input_ids, filling)
        else:
            hidden = model.narrow_hidden(input_ids, last, filling)
        if cache is not None:
            cache.lengths[:] = input_ids.shape[1] if last is None else (last + 1).numpy()
        return hidden

    @staticmethod
    def _sequences(cache: Cache) -> int:
        return len(cache.sequences if isinstance(cache, PlainCache) else cache.lengths)
