"""Dead units brought back during training: neurons, and query, key and value channels, that AbsTopK never picks.

A unit that is never among the largest gets no gradient, neither into its weights nor out of them, so it stays dead for
good, and holds its floor of nonzeros, which others could use. Such a unit begins anew: as many weights into it as it
had, at new places and as large together as those of living units; small ones out of it; no moments.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from sparsecircuits.errors import UserError
from sparsecircuits.kernels import Linear
from sparsecircuits.models.hooks import intervene
from sparsecircuits.models.statistics import UNITS, no_units, unit_layers
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.seeds import derived_seed
from sparsecircuits.training.distributed import World

OUT_SCALE = 0.3
"""Weights out of a newborn unit, as a share of the matrix's root-mean-square nonzero: it should not disturb."""
UNTIL = 0.8
"""Progress after which nothing is revived: who is born later does not learn any more."""
Opened = Callable[[Linear], AbstractContextManager[list[Tensor]]]
"""A layer's weight [out, in] and its moments, to be changed in place while open."""


class Reviver:
    """Notes which units fire, and lets those that did not begin anew."""

    def __init__(self, model: SparseTransformer, seed: int, world: World) -> None:
        self.model, self.seed, self.world = model, seed, world
        self.fired = no_units(model)
        """By site of `UNITS`, bool [n_layer, width]: nonzero on some token since the last revival."""

    def watching(self) -> AbstractContextManager[None]:
        """While open, forward passes note which units are nonzero."""

        def note(site: str, layer: int, output: Tensor) -> Tensor:
            self.fired[site][layer] |= output.detach().flatten(0, -2).any(dim=0)
            return output

        layers = range(self.model.config.n_layer)
        return intervene(
            self.model, {f"{layer}.{site}": functools.partial(note, site, layer) for site in UNITS for layer in layers}
        )

    @torch.no_grad()
    def revive(self, step: int, opened: Opened) -> dict[str, int]:
        """Let every unit that has not fired since the last call begin anew; how many, by kind of unit."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, step))
        counts = dict.fromkeys(UNITS.values(), 0)
        for site, kind in UNITS.items():
            fired = self.world.sum_(self.fired[site].float()) > 0
            for layer in range(self.model.config.n_layer):
                dead = (~fired[layer]).nonzero()[:, 0]
                counts[kind] += len(dead)
                if len(dead):
                    self._renew(site, layer, dead, opened, generator)
        self.fired = no_units(self.model)
        return counts

    def _renew(self, site: str, layer: int, dead: Tensor, opened: Opened, generator: torch.Generator) -> None:
        reads, rows, writes = unit_layers(self.model, site, layer)
        places = rows.start + dead
        with opened(reads) as (weight, *moments):
            _renew_rows(weight[rows], dead, generator)
            for moment in moments:
                moment[places] = 0
        if reads.bias is not None:
            reads.bias[places] = 0
        if writes is not None:
            with opened(writes) as (weight, *moments):
                _renew_columns(weight, dead, generator)
                for moment in moments:
                    moment[:, dead] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""
        return self.fired

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.fired = {site: fired.to(self.model.device) for site, fired in state.items()}


def _renew_rows(weight: Tensor, dead: Tensor, generator: torch.Generator) -> None:
    """Draw rows of [out, in] anew: each has as many nonzeros as before, and the mean norm of the living ones."""
    norms = weight.norm(dim=1)
    living = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    living[dead] = False
    norm = norms[living].mean() if living.any() else norms.mean()
    for row in dead.tolist():
        count = int(weight[row].count_nonzero())
        if not count:
            continue
        places = torch.randperm(weight.shape[1], generator=generator)[:count].to(weight.device)
        values = torch.randn(count, generator=generator).to(weight)
        weight[row] = 0
        weight[row, places] = values * (norm / values.norm())


def _renew_columns(weight: Tensor, dead: Tensor, generator: torch.Generator) -> None:
    """Draw columns of [out, in] anew, small ones, at the places that they have."""
    scale = OUT_SCALE * weight.norm() / weight.count_nonzero().clamp(min=1).sqrt()
    columns = weight[:, dead]
    values = torch.randn(columns.shape, generator=generator).to(weight) * scale
    weight[:, dead] = torch.where(columns != 0, values, columns)


def require_revivable(sharded: bool) -> None:
    """Raise UserError where dead units cannot be revived."""
    if sharded:
        raise UserError("sparsity.revive_every needs whole matrices in every process: use --parallel ddp")
