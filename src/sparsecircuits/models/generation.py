"""Sampling text with a key-value cache."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.models.config import ModelConfig
from sparsecircuits.seeds import checked_seed

if TYPE_CHECKING:
    from sparsecircuits.data.tokenizer import Tokenizer


class Generator(Protocol):
    """What text can be sampled from: a model, or a runtime that stands for one. A cache knows its length."""

    config: ModelConfig
    tokenizer: "Tokenizer | None"

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def check_ids(self, input_ids: Tensor, start: int = 0) -> None:
        """Raise UserError for token ids that it cannot read."""

    def empty_cache(self, batch: int = 1) -> Any:
        """A cache for fresh sequences."""

    def last_logits(
        self, input_ids: Int[Tensor, "B T"], last: Int[Tensor, " B"], cache: Any = None
    ) -> Float[Tensor, "B V"]:
        """Logits at one position of each sequence."""


def pick(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """One token id per row of logits [B, V]: greedy at temperature 0, else sampled from the top_k."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    # In double precision and below zero, so that the smallest temperature there is divides without overflow.
    logits = (logits.double() - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1).float(), 1, generator=generator).squeeze(-1)


@torch.inference_mode()
def stream(
    model: Generator,
    input_ids: Int[Tensor, "B T"],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Yield one new token id per sequence at a time.

    When the context is full, the older half of it is forgotten and the rest is read again. Raises
    UserError for a prompt that is empty or longer than the context, or for settings out of range.
    """
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature must be a number of at least 0, got {temperature}")
    if (top_k is not None and top_k < 1) or max_new_tokens < 0:
        raise UserError("top_k must be at least 1 and max_new_tokens not negative")
    model.check_ids(input_ids)
    n_ctx = model.config.n_ctx
    generator = None if seed is None else torch.Generator(model.device).manual_seed(checked_seed(seed))
    seen, fresh, cache = input_ids, input_ids, model.empty_cache(len(input_ids))
    for _ in range(max_new_tokens):
        if cache.length + fresh.shape[1] > n_ctx and cache.length:
            fresh, cache = seen[:, -max(1, n_ctx // 2) :], model.empty_cache(len(input_ids))
        last = torch.full((fresh.shape[0],), fresh.shape[1] - 1, device=fresh.device)
        token = pick(model.last_logits(fresh, last, cache), temperature, top_k, generator)
        fresh = token.unsqueeze(1)
        seen = torch.cat((seen, fresh), dim=1)
        yield token


def generate(
    model: Generator,
    prompt: str,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> str:
    """The prompt and its continuation as text; greedy by default. Stops at the end-of-text token.

    Raises UserError for an empty prompt, or one longer than the model's context.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise UserError("the model has no tokenizer: load it with sparsecircuits.load_model")
    ids = tokenizer.encode(prompt)
    if not ids:
        raise UserError("the prompt is empty")
    batch = torch.tensor([ids], device=model.device)
    settings = {"temperature": temperature, "top_k": top_k, "seed": seed}
    for token in stream(model, batch, max_new_tokens, **settings):  # type: ignore[arg-type]
        if int(token) == tokenizer.eot_id:
            break
        ids.append(int(token))
    return tokenizer.decode(ids)
