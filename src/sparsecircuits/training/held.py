"""Steps that cost what the nonzeros cost: between two steps with dense gradients the support stays as it is.

From the end of a step with dense gradients to the start of the next (`sparsity.regrow_every` steps later), a sparse
matrix is its nonzeros: their values are what the graph, the gradient, Adam and decay see. Zero weights stay zero, and
their moments wait. Of the bigram table, a step touches the rows of its tokens. The paper's Appendix B asks for this;
the amortisation over steps is RigL's (Evci et al. 2020).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam as adam_

from sparsecircuits.kernels import Embedding, Held, Linear, Pattern
from sparsecircuits.kernels.sparse_linear import MOST_DENSE
from sparsecircuits.models.transformer import HeldRows, SparseTransformer
from sparsecircuits.training.config import OptimizerConfig
from sparsecircuits.training.distributed import World, local

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class _Piece:
    """What is held of one parameter: entries of it (by flat place), or whole rows."""

    name: str
    whole: nn.Parameter
    index: Tensor
    by_row: bool
    values: Tensor
    """The leaf that learns."""
    moments: tuple[Tensor, Tensor]

    def view(self, tensor: Tensor) -> Tensor:
        """This process's part of a tensor like the parameter, so that `index` indexes its first dimension."""
        mine = local(tensor.detach())
        return mine if self.by_row else mine.view(-1)


class HeldWeights:
    """The held part of a model in training. `hold`, then for each step `begin`, `collect` and `step`; `release`
    before the next step with dense gradients. The model's weights are up to date after every step.

    direct: the layers compute with the nonzeros (float32 on a CPU). Otherwise they compute with the dense matrices,
    of whose gradients the part at the nonzeros is used: the same numbers, at the dense price.
    shards: the processes that weights are spread over (FSDP2).
    """

    def __init__(
        self,
        model: SparseTransformer,
        names: Iterable[str],
        adam: torch.optim.Adam,
        config: OptimizerConfig,
        *,
        direct: bool,
        shards: World | None = None,
    ) -> None:
        parameters = dict(model.named_parameters())
        self.model, self.adam, self.config, self.direct, self.shards = model, adam, config, direct, shards
        self.matrices = {name: parameters[name] for name in names if parameters[name].dim() == 2}
        self.pieces: list[_Piece] = []
        self.rows: _Piece | None = None
        self.share = 1.0
        """Of the held matrices' squared gradient: how much of it lay at the nonzeros when it was last known whole."""

    @property
    def names(self) -> list[str]:
        """The matrices that are held."""
        return [piece.name for piece in self.pieces]

    @property
    def entries(self) -> int:
        """Entries of the parameters that are held, zeros included."""
        return sum(piece.whole.numel() for piece in self._touched)

    @property
    def _touched(self) -> list[_Piece]:
        """What a step changes: the matrices, and the table's rows."""
        return self.pieces if self.rows is None else [*self.pieces, self.rows]

    def others(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those that are not held."""
        held = {id(piece.whole) for piece in self.pieces}
        return [p for p in parameters if id(p) not in held]

    @torch.no_grad()
    def hold(self, names: Sequence[str] | None = None) -> None:
        """Hold the matrices that are sparse enough, or those named, as their nonzeros are now."""
        for name in self._sparse_enough() if names is None else names:
            whole = self.matrices[name]
            flat = local(whole.detach()).view(-1)
            pattern = Pattern.of(whole.detach()) if self.direct else None
            places = flat.nonzero()[:, 0] if pattern is None else pattern.places
            piece = self._piece(name, whole, places, by_row=False)
            self.pieces.append(piece)
            if pattern is not None:
                for layer in self._layers(whole):
                    layer.held = Held(pattern, piece.values)
        self._measure_share()

    def _sparse_enough(self) -> list[str]:
        counts = torch.tensor([int(local(w.detach()).count_nonzero()) for w in self.matrices.values()])
        if self.shards is not None:
            counts = torch.tensor(self.shards.total(*counts.tolist()))
        sizes = {name: matrix.numel() for name, matrix in self.matrices.items()}
        return [n for (n, size), count in zip(sizes.items(), counts.tolist(), strict=True) if count < MOST_DENSE * size]

    def _layers(self, whole: nn.Parameter) -> list[Linear | Embedding]:
        return [m for m in self.model.modules() if isinstance(m, Linear | Embedding) and m.weight is whole]

    def _piece(self, name: str, whole: nn.Parameter, index: Tensor, *, by_row: bool) -> _Piece:
        piece = _Piece(name, whole, index, by_row, torch.empty(0), (torch.empty(0), torch.empty(0)))
        piece.values = piece.view(whole).index_select(0, index).requires_grad_()
        state = self.adam.state[whole]
        first, second = (piece.view(state[key]).index_select(0, index) for key in MOMENTS)
        piece.moments = (first, second)
        return piece

    def _measure_share(self) -> None:
        known = [(piece.index, piece.view(piece.whole.grad)) for piece in self.pieces if piece.whole.grad is not None]
        if not known:
            return
        here = float(sum(grad[index].square().sum() for index, grad in known))
        everywhere = float(sum(grad.square().sum() for _, grad in known))
        if self.shards is not None:
            here, everywhere = self.shards.total(here, everywhere)
        self.share = here / everywhere if here > 0 else 1.0

    @torch.no_grad()
    def begin(self, inputs: np.ndarray) -> None:
        """Get ready for a step on these tokens: the whole batch's, over all processes."""
        for piece in self.pieces:
            piece.values.grad = None
        table = dict(self.model.named_parameters()).get("bigram.weight")
        if not self.pieces or table is None or not table.requires_grad:
            return
        ids = torch.from_numpy(np.unique(inputs)).to(local(table.detach()).device)
        if self.shards is not None:
            mine = local(table.detach()).shape[0]
            first = sum(self.shards.gather(mine)[: self.shards.rank])
            ids = ids[(ids >= first) & (ids < first + mine)] - first
        self.rows = self._piece("bigram.weight", table, ids, by_row=True)
        if self.direct:
            places = torch.full((table.shape[0],), len(ids), dtype=torch.int64)
            places[ids] = torch.arange(len(ids))
            self.model.held_bigram = HeldRows(self.rows.values, places)

    @torch.no_grad()
    def collect(self) -> tuple[list[Tensor], list[Tensor]]:
        """After backward: the held matrices' gradients at their nonzeros, and the table's at the step's rows."""
        for piece in self._touched:
            if not self.direct and piece.whole.grad is not None:
                piece.values.grad = piece.view(piece.whole.grad).index_select(0, piece.index)
                piece.whole.grad = None
        found = [_gradient(piece) for piece in self._touched]
        return found[: len(self.pieces)], found[len(self.pieces) :]

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Adam on what is held, then decay of the matrices (of `decay` of each weight)."""
        pieces = self._touched
        if not pieces:
            return
        adam_(
            [p.values for p in pieces],
            [_gradient(p) for p in pieces],
            [p.moments[0] for p in pieces],
            [p.moments[1] for p in pieces],
            [],
            [self.adam.state[p.whole]["step"] for p in pieces],
            fused=True,
            amsgrad=False,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            lr=rate,
            weight_decay=0.0,
            eps=self.config.eps,
            maximize=False,
        )
        for piece in pieces:
            if decay and not piece.by_row:
                piece.values.mul_(1.0 - decay)
            piece.view(piece.whole).index_copy_(0, piece.index, piece.values)
        if self.rows is not None:
            self._keep_moments(self.rows)
            self.rows = self.model.held_bigram = None

    @torch.no_grad()
    def release(self) -> None:
        """Give the moments back, and let the layers compute with whole matrices again."""
        for piece in self.pieces:
            self._keep_moments(piece)
            for layer in self._layers(piece.whole):
                layer.held = None
        self.pieces = []

    def _keep_moments(self, piece: _Piece) -> None:
        for key, held in zip(MOMENTS, piece.moments, strict=True):
            piece.view(self.adam.state[piece.whole][key]).index_copy_(0, piece.index, held)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside weights and moments (after `release`, what was held before)."""
        return {"names": self.names, "share": self.share}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what was held."""
        self.share = state["share"]
        self.hold(state["names"])


def _gradient(piece: _Piece) -> Tensor:
    if piece.values.grad is None:
        piece.values.grad = torch.zeros_like(piece.values)
    return piece.values.grad
