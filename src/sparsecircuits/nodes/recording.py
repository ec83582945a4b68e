"""What nodes and heads do on a batch of prompts, in the whole model or in what a gating leaves of it."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.models.hooks import record
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.gating import Gating
from sparsecircuits.nodes.task_loss import chunks
from sparsecircuits.tasks import PairBatch


def recordings(
    model: SparseTransformer, batch: PairBatch, sites: Iterable[str], gating: Gating | None = None
) -> Iterator[tuple[PairBatch, dict[str, Tensor]]]:
    """(prompts, activations [n, T, width] by site) of a batch, a few prompts after the other. No site: nothing."""
    wanted = list(sites)
    for _, _, chunk in chunks(batch) if wanted else ():
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if gating is not None:
                stack.enter_context(gating.over(model, chunk))
            seen = stack.enter_context(record(model, wanted))
            model(torch.from_numpy(chunk.tokens).to(model.device))
        yield chunk, dict(seen)


@torch.no_grad()
def head_pattern(model: SparseTransformer, seen: Mapping[str, Tensor], layer: int, head: int) -> Float[Tensor, "n T T"]:
    """A head's attention pattern, [prompt, query, key], from the recorded q and k of its layer."""
    q, k = (seen[f"{layer}.attn.{letter}"] for letter in "qk")
    return model.block(layer).attn.pattern(q, k, slice(head, head + 1))[:, 0]
