"""A model at the cost of its nonzeros, for inference on a CPU: one compiled function for a token, the model's own
layers over lists of nonzeros for a prompt.

It computes what the model computes, to float32 rounding. Where two magnitudes differ by less than that at a threshold
of AbsTopK, the two may keep different ones, as any two orders of summation do.
"""

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.inference.cache import SparseCache
from sparsecircuits.inference.packing import Decoder
from sparsecircuits.inference.shell import held_model
from sparsecircuits.kernels import causal_attention
from sparsecircuits.models.transformer import SparseTransformer, rows_at
from sparsecircuits.plans.plan import Plan

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer

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
        self._decoder = Decoder(plan, dtype)
        self._shell = held_model(plan, dtype)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu")

    @property
    def nonzeros(self) -> int:
        """Weights of the sparse matrices, embedding and unembedding included."""
        return self.plan.nonzeros + len(self.plan.embedding)

    def empty_cache(self, batch: int = 1) -> SparseCache:
        """A cache for fresh sequences."""
        return SparseCache.empty(self.config, batch)

    def check_ids(self, input_ids: Tensor, start: int = 0) -> None:
        """Raise UserError for token ids that the model cannot read. start: position of the first one."""
        self._shell.model.check_ids(input_ids, start)

    @torch.inference_mode()
    def __call__(self, input_ids: Int[Tensor, "B T"], cache: SparseCache | None = None) -> Float[Tensor, "B T V"]:
        """Logits of the next token at each position. cache: continue sequences whose earlier tokens it holds. Raises
        UserError for more than n_ctx tokens or an id outside the vocabulary."""
        if cache is not None and cache.length:
            return torch.stack([self.step(column, cache) for column in input_ids.unbind(dim=1)], dim=1)
        hidden = self._prefill(input_ids, None, cache)
        return self._shell.unembed(hidden, input_ids)

    @torch.inference_mode()
    def last_logits(
        self, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], cache: SparseCache | None = None
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
    def step(self, tokens: Int[Tensor, " B"], cache: SparseCache) -> Float[Tensor, "B V"]:
        """Logits after one more token of each sequence, which the cache then holds."""
        self.check_ids(tokens[:, None], cache.length)
        if len(tokens) != len(cache.lengths):
            raise UserError(f"{len(tokens)} tokens cannot go on {len(cache.lengths)} sequences")
        cache.fit(cache.length + 1)
        chunks = min(self._threads or torch.get_num_threads(), len(tokens))
        logits = torch.empty(len(tokens), self.config.vocab_size)
        self._decoder(tokens.long().numpy(), cache, logits.numpy(), chunks)
        cache.lengths += 1
        return logits

    def _prefill(self, input_ids: Tensor, last: Tensor | None, cache: SparseCache | None) -> Float[Tensor, "B S D"]:
        """What the unembedding reads, at all positions or at one of each sequence; its keys and values go into the
        cache."""
        model = self._shell.model
        if cache is not None:
            if len(input_ids) != len(cache.lengths):
                raise UserError(f"{len(input_ids)} sequences do not fit a cache of {len(cache.lengths)}")
            cache.fit(input_ids.shape[1])
        x, positions = model.embed(input_ids)
        place = None
        for layer in range(self.config.n_layer):
            block = model.block(layer)
            x = block.resid_in(x)
            attn, read = block.attn, block.attention_read(x, positions)
            q, k, v = attn.c_attn(attn.act_in(read)).chunk(3, dim=-1)
            q, k, v = attn.q(q), attn.k(k), attn.v(v)
            if cache is not None:
                cache.put(layer, k, v, last)
            q, k, v = (part.contiguous() for part in (q, k, v))
            y = causal_attention(q, k, v, attn.n_head, attn.sink_logit, attn.offset_logit)
            if last is not None and layer == self.config.n_layer - 1:
                place = last
                x, y = rows_at(x, last), rows_at(y, last)
            x = block.add_attention(x, attn.resid_delta(attn.c_proj(y)))
            here = positions if place is None or positions is None else positions[place].unsqueeze(1)
            x = block.mlp_half(x, here)
        if cache is not None:
            cache.lengths[:] = input_ids.shape[1] if last is None else (last + 1).numpy()
        return model.final_norm(x)
