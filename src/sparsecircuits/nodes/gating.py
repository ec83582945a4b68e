"""What runs and what is frozen while a model reads a batch of pairs: gates on nodes and edges, three ablations."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsecircuits.kernels import gate_channels
from sparsecircuits.models.hooks import intervene
from sparsecircuits.models.sites import split_site
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.nodes.ablation import Ablation
from sparsecircuits.nodes.donors import Donors, other_prompts
from sparsecircuits.nodes.edges import EdgeGates
from sparsecircuits.nodes.narrow import narrowed
from sparsecircuits.nodes.space import NodeSpace
from sparsecircuits.tasks import PairBatch


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
    def over(self, model: SparseTransformer, batch: PairBatch, *, narrow: bool = False) -> Iterator[None]:
        """While open, a forward pass over the batch's tokens runs gated: a narrow one (see `nodes.narrow`), or one
        of all positions."""
        on = self.space.split(self.gates.to(model.device, torch.float32))
        instead = self._instead(model, batch, narrow)

        def freeze(site: str) -> Callable[[Tensor], Tensor]:
            return lambda x: freeze_channels(x, on[site], instead[site])

        def carried(site: str) -> Tensor:
            return instead[_after_attention(site) if self.ablation == "resample" else site]

        with contextlib.ExitStack() as stack:
            if self.edges is not None:
                for module, hook in self.edges.hooks(model, self.space, carried):
                    stack.callback(module.register_forward_hook(hook).remove)
            stack.enter_context(intervene(model, {site: freeze(site) for site in self.space.slices}))
            yield

    def _instead(self, model: SparseTransformer, batch: PairBatch, narrow: bool) -> Mapping[str, Tensor]:
        """What a node that is off carries, by site: [width], or [n, S, width] at the positions that the pass has."""
        if self.ablation != "resample":
            return self.space.split(self.frozen.to(model.device))
        values = other_prompts(model, self.space, self.donors or Donors.pairs(batch))
        return (
            narrowed(values, model.config.n_layer, torch.from_numpy(batch.last).to(model.device)) if narrow else values
        )


def _after_attention(site: str) -> str:
    """Edges from v leave through the attention pattern: what c_proj reads is `attn.y`."""
    return site.removesuffix("v") + "y" if split_site(site)[1] == "attn.v" else site


def freeze_channels(x: Tensor, gate: Tensor, instead: Tensor) -> Tensor:
    """x * gate + instead * (1 - gate); `instead` is [n], or as x. Raises ValueError where it is neither."""
    if instead.dim() == 1:
        return gate_channels(x, gate, instead)
    if instead.shape != x.shape:  # one row would be stretched over all, in silence
        raise ValueError(f"values of shape {tuple(instead.shape)} cannot stand for {tuple(x.shape)}")
    return torch.lerp(instead, x, gate.to(x.dtype))
