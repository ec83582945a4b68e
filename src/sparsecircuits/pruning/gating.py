"""What runs and what is frozen while a model reads a batch of pairs: gates on nodes and edges, three ablations."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.errors import UserError, no_such
from sparsecircuits.kernels import gate_channels
from sparsecircuits.models.hooks import intervene, record
from sparsecircuits.models.sites import split_site
from sparsecircuits.models.transformer import SparseTransformer, rows_like
from sparsecircuits.pruning.config import Ablation
from sparsecircuits.pruning.edges import EdgeGates
from sparsecircuits.pruning.gates import NodeSpace
from sparsecircuits.tasks import PairBatch

ABLATIONS: tuple[str, ...] = get_args(Ablation)


@dataclass(frozen=True)
class Donors:
    """For each prompt of a batch, another prompt that it takes activations from.

    batch: the donors, row by row; place [n, T]: which of the donor's positions stands for each position.
    """

    batch: PairBatch
    place: np.ndarray

    @classmethod
    def pairs(cls, batch: PairBatch) -> "Donors":
        """Each prompt's donor is the other one of its pair."""
        return cls(batch.take(np.arange(len(batch.last)) ^ 1), counterparts(batch))

    def rows(self, start: int, stop: int, width: int) -> "Donors":
        """The donors of prompts start..stop, whose tokens are `width` wide."""
        return Donors(self.batch.rows(start, stop), self.place[start:stop, :width])


@dataclass(frozen=True)
class Gating:
    """Gates on all nodes, 1 on and 0 off, and on some edges.

    A node that is off carries, after AbsTopK, its ablation value: a constant per node (`frozen` [nodes]: its
    mean over pretraining text, or zero), or for `resample` what it is on a donor prompt, in the whole model:
    by default the other prompt of the pair. There, positions of the common beginning are each other's
    counterparts, and so are those after it counted from the end. Gates may be learned: all is differentiable
    in them.
    """

    space: NodeSpace
    gates: Float[Tensor, " nodes"]
    frozen: Float[Tensor, " nodes"]
    ablation: Ablation = "mean"
    edges: EdgeGates | None = None
    donors: Donors | None = None

    @contextlib.contextmanager
    def over(self, model: SparseTransformer, batch: PairBatch) -> Iterator[None]:
        """While open, a forward pass over the batch's tokens runs gated."""
        on = self.space.split(self.gates.to(model.device, torch.float32))
        instead = self._instead(model, batch)
        last = torch.from_numpy(batch.last).to(model.device)

        def beside(x: Tensor, values: Tensor) -> Tensor:
            return values if values.dim() == 1 else rows_like(values, x, last)

        def freeze(site: str) -> Callable[[Tensor], Tensor]:
            return lambda x: freeze_channels(x, on[site], beside(x, instead(site)))

        def carried(site: str) -> Callable[[Tensor], Tensor]:
            values = instead(_after_attention(site) if self.ablation == "resample" else site)
            return lambda x: beside(x, values)

        with contextlib.ExitStack() as stack:
            if self.edges is not None:
                for module, hook in self.edges.hooks(model, self.space, carried):
                    stack.callback(module.register_forward_hook(hook).remove)
            stack.enter_context(intervene(model, {site: freeze(site) for site in self.space.slices}))
            yield

    def _instead(self, model: SparseTransformer, batch: PairBatch) -> Callable[[str], Tensor]:
        if self.ablation == "resample":
            return other_prompts(model, self.space, self.donors or Donors.pairs(batch)).__getitem__
        return self.space.split(self.frozen.to(model.device)).__getitem__


def _after_attention(site: str) -> str:
    """Edges from v leave through the attention pattern: what c_proj reads is `attn.y`."""
    return site.removesuffix("v") + "y" if split_site(site)[1] == "attn.v" else site


def ablation_values(ablation: str, means: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """The constants of an ablation (those of `resample` are not used). Raises UserError for an unknown one."""
    if ablation not in ABLATIONS:
        raise UserError(no_such("no ablation", ablation, ABLATIONS))
    return means if ablation == "mean" else torch.zeros_like(means)


def freeze_channels(x: Tensor, gate: Tensor, instead: Tensor) -> Tensor:
    """x * gate + instead * (1 - gate); `instead` is [n], or as x."""
    return gate_channels(x, gate, instead) if instead.dim() == 1 else torch.lerp(instead, x, gate.to(x.dtype))


@torch.no_grad()
def other_prompts(model: SparseTransformer, space: NodeSpace, donors: Donors) -> dict[str, Tensor]:
    """Activations [n, T, width] of all node sites, and of `attn.y`, on each row's donor, in place."""
    sites = [*space.slices, *(f"{layer}.attn.y" for layer in range(model.config.n_layer))]
    with record(model, "|".join(site.replace(".", r"\.") for site in sites)) as seen:
        model(torch.from_numpy(donors.batch.tokens).to(model.device))
    place = torch.from_numpy(np.ascontiguousarray(donors.place)).to(model.device)
    row = torch.arange(place.shape[0], device=model.device)[:, None]
    return {site: seen[site][row, place] for site in sites}


def counterparts(batch: PairBatch) -> np.ndarray:
    """The position [2N, T] on a row's other prompt (row ^ 1) that stands for each of its positions."""
    tokens, last = batch.tokens, batch.last
    other = np.arange(len(tokens)) ^ 1
    common = (tokens == tokens[other]).cumprod(axis=1).sum(axis=1)
    common = np.minimum(common, np.minimum(last, last[other]))[:, None]
    place = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    from_end = np.clip(place - last[:, None] + last[other][:, None], common, None)
    return np.minimum(np.where(place < common, place, from_end), last[other][:, None])
