"""Steps that cost what the nonzeros cost: between two steps with dense gradients the support stays as it is.

From the end of a step with dense gradients to the start of the next (`sparsity.regrow_every` steps later), a sparse
matrix is its nonzeros: their values are what the graph, the gradient, Adam and decay see. Zero weights stay zero, and
their moments wait. Of the bigram table, a step touches the rows of its tokens. The paper's Appendix B asks for this;
the amortisation over steps is RigL's (Evci et al. 2020).
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
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
class Piece:
    """What is held of one parameter: entries of it (by flat place), or whole rows."""

    name: str
    whole: nn.Parameter | None
    """None: it is kept nowhere else."""
    size: int
    """Entries of the parameter, zeros included."""
    index: Tensor
    by_row: bool
    values: Tensor
    """The leaf that learns."""
    moments: tuple[Tensor, Tensor]
    step: Tensor
    """Adam's count of steps."""

    @property
    def gradient(self) -> Tensor:
        """That of the values; zeros where there is none yet."""
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        return self.values.grad


def _view(tensor: Tensor, by_row: bool) -> Tensor:
    """This process's part of a tensor like a parameter, so that a piece's `index` indexes its first dimension."""
    mine = local(tensor.detach())
    return mine if by_row else mine.view(-1)


def share_of(here: float, everywhere: float) -> float:
    """How much of a squared gradient lay at the nonzeros; 1 where there is nothing to tell by."""
    return here / everywhere if here > 0 else 1.0


def layers_of(model: SparseTransformer, whole: nn.Parameter) -> list[Linear | Embedding]:
    """Those that compute with a weight."""
    return [m for m in model.modules() if isinstance(m, Linear | Embedding) and m.weight is whole]


@contextlib.contextmanager
def whole_opened(adam: torch.optim.Adam, layer: Linear) -> Iterator[list[Tensor]]:
    """A layer's whole weight [out, in], and its moments in Adam's state."""
    state = adam.state[layer.weight]
    yield [layer.weight.data, *(state[key] for key in MOMENTS if key in state)]


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
        self.pieces: list[Piece] = []
        self.rows: Piece | None = None
        self.share = 1.0
        """Of the held matrices' squared gradient: how much of it lay at the nonzeros when it was last known whole."""

    @property
    def names(self) -> list[str]:
        """The matrices that are held."""
        return [piece.name for piece in self.pieces]

    @property
    def entries(self) -> int:
        """Entries of the parameters that are held, zeros included."""
        return sum(piece.size for piece in self._touched)

    @property
    def apart(self) -> int:
        """Nonzeros of matrices that the model itself is without."""
        return sum(int(piece.values.detach().count_nonzero()) for piece in self.pieces if piece.whole is None)

    @property
    def _touched(self) -> list[Piece]:
        """What a step changes: the matrices, and the table's rows."""
        return self.pieces if self.rows is None else [*self.pieces, self.rows]

    def others(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those that are not held."""
        held = {id(piece.whole) for piece in self.pieces}
        return [p for p in parameters if id(p) not in held]

    def opened(self, layer: Linear) -> AbstractContextManager[list[Tensor]]:
        """A layer's weight and its moments, to be changed in place while open, when nothing is held."""
        return whole_opened(self.adam, layer)

    def enter(self, regrows: bool) -> "HeldWeights | None":
        """Begin a step; regrows: one in which zero weights may come back. Returns what is held in it: None where
        gradients are dense, after which `hold` is due."""
        if not regrows:
            return self
        self.release()
        return None

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
                for layer in layers_of(self.model, whole):
                    layer.held = Held(pattern, piece.values)
        self._measure_share()

    def _sparse_enough(self) -> list[str]:
        counts = torch.tensor([int(local(w.detach()).count_nonzero()) for w in self.matrices.values()])
        if self.shards is not None:
            counts = torch.tensor(self.shards.total(*counts.tolist()))
        sizes = {name: matrix.numel() for name, matrix in self.matrices.items()}
        return [n for (n, size), count in zip(sizes.items(), counts.tolist(), strict=True) if count < MOST_DENSE * size]

    def _piece(self, name: str, whole: nn.Parameter, index: Tensor, *, by_row: bool) -> Piece:
        state = self.adam.state[whole]
        values, first, second = (
            _view(tensor, by_row).index_select(0, index) for tensor in (whole, *(state[key] for key in MOMENTS))
        )
        values.requires_grad_()
        return Piece(name, whole, whole.numel(), index, by_row, values, (first, second), state["step"])

    def _measure_share(self) -> None:
        gradients = [(p.index, p.whole.grad) for p in self.pieces if p.whole is not None]
        known = [(index, _view(grad, by_row=False)) for index, grad in gradients if grad is not None]
        if not known:
            return
        here = float(sum(grad[index].square().sum() for index, grad in known))
        everywhere = float(sum(grad.square().sum() for _, grad in known))
        if self.shards is not None:
            here, everywhere = self.shards.total(here, everywhere)
        self.share = share_of(here, everywhere)

    @torch.no_grad()
    def begin(self, inputs: np.ndarray) -> None:
        """Get ready for a step on these tokens: the whole batch's, over all processes."""
        for piece in self.pieces:
            piece.values.grad = None
        if self.pieces:
            self._hold_rows(inputs)

    def _hold_rows(self, inputs: np.ndarray) -> None:
        table = dict(self.model.named_parameters()).get("bigram.weight")
        if table is None or not table.requires_grad:
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
    def collect(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """After backward: the held matrices' gradients at their nonzeros, the table's at the step's rows, and the
        gradients of zero weights that may come back in this step."""
        for piece in self._touched:
            if not self.direct and piece.whole is not None and piece.whole.grad is not None:
                piece.values.grad = _view(piece.whole.grad, piece.by_row).index_select(0, piece.index)
                piece.whole.grad = None
        rows = [] if self.rows is None else [self.rows.gradient]
        return [piece.gradient for piece in self.pieces], rows, []

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Adam on what is held, then decay of the matrices (of `decay` of each weight)."""
        pieces = self._touched
        if not pieces:
            return
        adam_(
            [p.values for p in pieces],
            [p.gradient for p in pieces],
            [p.moments[0] for p in pieces],
            [p.moments[1] for p in pieces],
            [],
            [p.step for p in pieces],
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
            if piece.whole is not None:
                _view(piece.whole, piece.by_row).index_copy_(0, piece.index, piece.values)
        if self.rows is not None:
            self._keep_moments(self.rows)
            self.rows = self.model.held_bigram = None

    @torch.no_grad()
    def release(self) -> None:
        """Give the moments back, and let the layers compute with whole matrices again."""
        for piece in self.pieces:
            self._keep_moments(piece)
            for layer in layers_of(self.model, self.matrices[piece.name]):
                layer.held = None
        self.pieces = []

    def finish(self) -> None:
        """After the last checkpoint: the model has all its weights again."""

    def _keep_moments(self, piece: Piece) -> None:
        assert piece.whole is not None
        for key, held in zip(MOMENTS, piece.moments, strict=True):
            _view(self.adam.state[piece.whole][key], piece.by_row).index_copy_(0, piece.index, held)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside weights and moments (after `release`, what was held before)."""
        return {"names": self.names, "share": self.share}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what was held."""
        self.share = state["share"]
        self.hold(state["names"])

    def renewed(self) -> dict[str, Any]:
        """The state for a checkpoint. A run that goes on from there holds its weights anew: so does this one, or
        their ends could differ."""
        state = self.state_dict()
        self.release()
        self.load_state_dict(state)
        return state
