"""Matrices of which training keeps the nonzeros alone: values, places and moments, no dense tensor between steps.

A held step costs what it costs in `held`. In a step in which weights may come back (`sparsity.regrow_every`) each
matrix's dense gradient is computed on the way back, read and freed before the next one's: the zero weights of the
largest gradients, as many as there are nonzeros, are candidates (RigL, Evci et al. 2020). They take the same Adam step
as the others, from zero, with a first moment of zero and a second one as if their gradient had always been as large as
now: with zero for that too, all would move by the same 0.45 of the rate, and those of one row together by far too much.
Then the largest weights stay, floors included, as in `Projector`. So this is training with whole matrices in which zero
weights forget their moments.

Several processes hold the same nonzeros each (a shard of them would save little). The dense gradient is summed over the
processes before it is read, so that all choose the same candidates.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsecircuits.kernels import Embedding, Held, Linear, Pattern, project_topk_
from sparsecircuits.kernels.sparse_linear import MOST_DENSE
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.sparsity.projection import Target, budget, targets
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.config import OptimizerConfig
from sparsecircuits.training.distributed import World
from sparsecircuits.training.hardware import return_freed_memory
from sparsecircuits.training.held import MOMENTS, HeldWeights, Piece, layers_of, share_of, whole_opened

STORED = 8 + 3 * 4
"""Bytes of a nonzero in a checkpoint: place, value, two moments."""


@dataclass
class Matrix(Piece):
    """A weight that is nowhere but here."""

    layers: list[Linear | Embedding]
    pattern: Pattern
    target: Target
    kept: int
    """Its budget."""

    def lay(self) -> None:
        """Let the layers compute with the nonzeros as they are now."""
        self.index = self.pattern.places
        for layer in self.layers:
            layer.register_parameter("weight", None)
            layer.held = Held(self.pattern, self.values)

    def give(self) -> nn.Parameter:
        """Let the layers compute with a dense matrix, which is returned."""
        whole = nn.Parameter(Held(self.pattern, self.values.detach()).dense())
        for layer in self.layers:
            layer.weight, layer.held = whole, None
        return whole


def held_apart(model: SparseTransformer, config: SparsityConfig) -> list[tuple[Target, int]]:
    """Which matrices are kept as their nonzeros alone, and their budgets."""
    if config.state != "compact" or config.dense:
        return []
    found = []
    for target in targets(model, config):
        weight = model.get_parameter(target.name)
        kept = budget(weight, target.density)
        if weight.dim() == 2 and kept < MOST_DENSE * weight.numel():
            found.append((target, kept))
    return found


@torch.no_grad()
def take_out(model: SparseTransformer, config: SparsityConfig) -> list[Matrix]:
    """Take those matrices out of a model that is sparse already; its layers then compute with their nonzeros."""
    found = []
    for target, kept in held_apart(model, config):
        whole = model.get_parameter(target.name)
        pattern = Pattern.of(whole)
        values = whole.detach().view(-1)[pattern.places].requires_grad_()
        moments = (torch.zeros_like(values), torch.zeros_like(values))
        piece = Piece(target.name, None, whole.numel(), pattern.places, False, values, moments, torch.zeros(()))
        matrix = Matrix(**vars(piece), layers=layers_of(model, whole), pattern=pattern, target=target, kept=kept)
        matrix.lay()
        found.append(matrix)
    del whole
    return_freed_memory()
    return found


class _Watched(torch.autograd.Function):
    """A layer's output as it is; on the way back, `see` gets what the dense gradient of its weight is made of."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, entered: Tensor, see: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(entered)
        ctx.see = see
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        ctx.see(grad.reshape(-1, grad.shape[-1]), ctx.saved_tensors[0])
        return grad, None, None


class CompactWeights(HeldWeights):
    """Weights that were taken out of a model: held in every step, and never released before `finish`."""

    pieces: list[Matrix]  # type: ignore[assignment]

    def __init__(
        self,
        model: SparseTransformer,
        matrices: Sequence[Matrix],
        adam: torch.optim.Adam,
        config: OptimizerConfig,
        world: World = World(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(model, (), adam, config, direct=True)
        self.pieces, self.world = list(matrices), world
        self.regrows = False
        self.candidates: dict[str, Piece] = {}
        self._opened: dict[str, nn.Parameter] = {}
        self._hooks: list[Any] = []
        self._squares = (0.0, 0.0)
        self._buffer = torch.empty(0)

    @property
    def _touched(self) -> list[Piece]:
        return [*super()._touched, *self.candidates.values()]

    def enter(self, regrows: bool) -> HeldWeights:
        """Begin a step: these weights are held in each."""
        self.regrows = regrows
        return self

    def hold(self, names: Sequence[str] | None = None) -> None:
        """They are held already."""

    def release(self) -> None:
        """There is nothing to give them back to."""

    @torch.no_grad()
    def begin(self, inputs: np.ndarray) -> None:
        """Get ready for a step on these tokens; where weights may come back, for the dense gradients."""
        if not self.regrows:
            super().begin(inputs)
            return
        self._squares = (0.0, 0.0)
        # One block of memory for each matrix in turn: freed and taken anew between activations it would leave holes.
        self._buffer = torch.empty(max(matrix.size for matrix in self.pieces))
        for matrix in self.pieces:
            matrix.values.grad = None
            if self.model.lm_head in matrix.layers:  # no layer's output: the loss computes with it
                self._opened[matrix.name] = matrix.give()
            else:
                self._hooks += [layer.register_forward_hook(self._watcher(matrix)) for layer in matrix.layers]

    def _dense(self, matrix: Matrix) -> Tensor:
        """Room for a dense tensor of its shape, until the next one's."""
        return self._buffer[: matrix.size].view(matrix.pattern.shape)

    def _watcher(self, matrix: Matrix) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor | None]:
        def see(grad: Tensor, entered: Tensor) -> None:
            gradient = self._dense(matrix)
            if entered.is_floating_point():
                torch.mm(grad.T, entered.reshape(-1, entered.shape[-1]), out=gradient)
            else:
                gradient.zero_().index_add_(0, entered.reshape(-1), grad)
            self._see(matrix, gradient)

        def hook(_module: nn.Module, entered: tuple[Tensor], output: Tensor) -> Tensor | None:
            return _Watched.apply(output, entered[0], see) if output.requires_grad else None

        return hook

    @torch.no_grad()
    def _see(self, matrix: Matrix, gradient: Tensor) -> None:
        """Choose candidates by this process's dense gradient (which is used up), summed over all. Of several
        micro-batches the first one's decides, and the others' are added there."""
        flat = gradient.view(-1)
        if matrix.name in self.candidates:
            chosen = self.candidates[matrix.name]
            chosen.gradient.add_(self.world.sum_(flat[chosen.index]))
            return
        self.world.sum_(flat)
        here, everywhere = self._squares
        self._squares = (here + _square(flat[matrix.index]), everywhere + _square(flat))
        flat[matrix.index] = 0
        # Nobody else could come back: larger gradients make larger weights, and the floor's are among these too.
        floor, dim = matrix.target.floor, matrix.target.dim
        project_topk_(gradient, matrix.kept + floor * gradient.shape[1 - dim], floor, dim)
        places = flat.nonzero()[:, 0]
        values, first, second = (flat.new_zeros(len(places)) for _ in range(3))
        values.requires_grad_().grad = flat[places]
        self.candidates[matrix.name] = Piece(
            matrix.name, None, 0, places, False, values, (first, second), matrix.step.clone()
        )

    @torch.no_grad()
    def collect(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """After backward: gradients at the nonzeros, at the table's rows, and at the candidates."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for matrix in self.pieces:
            whole = self._opened.pop(matrix.name, None)
            if whole is None:
                continue
            matrix.lay()
            if whole.grad is not None:
                matrix.values.grad = whole.grad.view(-1)[matrix.index]
                self._see(matrix, whole.grad)
        if self.regrows:
            # Of the places held until now. Those that come back were chosen for this batch's gradient: with them the
            # share would look larger than it will be in the next batches.
            self.share = share_of(*self._squares)
        sampled, rows, _ = super().collect()
        return sampled, rows, [candidate.gradient for candidate in self.candidates.values()]

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        """Adam on what is held and on the candidates, decay, and the largest of both stay."""
        for candidate in self.candidates.values():
            candidate.moments[1].copy_(candidate.gradient.square())
        super().step(rate, decay)
        if not self.candidates:
            return
        for matrix in self.pieces:
            self._regrow(matrix, self.candidates.pop(matrix.name))
        self._buffer = torch.empty(0)

    def _regrow(self, matrix: Matrix, candidates: Piece) -> None:
        """Keep the largest of both."""
        weight = self._dense(matrix).zero_()
        flat, both = weight.view(-1), torch.cat((matrix.index, candidates.index))
        flat[both] = torch.cat((matrix.values, candidates.values))
        project_topk_(weight, matrix.kept, matrix.target.floor, matrix.target.dim)
        matrix.pattern = Pattern.of(weight)

        def chosen(old: Tensor, new: Tensor) -> Tensor:
            flat[both] = torch.cat((old, new))
            return flat[matrix.pattern.places]

        first, second = map(chosen, matrix.moments, candidates.moments)
        matrix.moments = (first, second)
        matrix.values = chosen(matrix.values.detach(), candidates.values.detach()).requires_grad_()
        matrix.lay()

    @contextlib.contextmanager
    def opened(self, layer: Linear) -> Iterator[list[Tensor]]:
        """A layer's weight and moments as dense tensors, to be changed in place; where nonzeros are all that is kept,
        they are taken over then."""
        matrix = next((matrix for matrix in self.pieces if layer in matrix.layers), None)
        if matrix is None:
            with whole_opened(self.adam, layer) as parts:
                yield parts
            return
        whole = [Held(matrix.pattern, part).dense() for part in (matrix.values.detach(), *matrix.moments)]
        yield whole
        matrix.pattern = Pattern.of(whole[0])
        values, first, second = (part.view(-1)[matrix.pattern.places] for part in whole)
        matrix.values, matrix.moments = values.requires_grad_(), (first, second)
        matrix.lay()

    @torch.no_grad()
    def finish(self) -> None:
        """Put the matrices back into the model."""
        while self.pieces:
            self.pieces.pop().give()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: all of it."""
        matrices = {
            m.name: {
                "places": m.index,
                "values": m.values.detach(),
                "step": m.step,
                **dict(zip(MOMENTS, m.moments, strict=True)),
            }
            for m in self.pieces
        }
        return {"share": self.share, "matrices": matrices}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's matrices over."""
        self.share = state["share"]
        for matrix in self.pieces:
            saved = state["matrices"][matrix.name]
            matrix.pattern = Pattern.at(matrix.pattern.shape, saved["places"])
            matrix.values, matrix.step = saved["values"].requires_grad_(), saved["step"]
            matrix.moments = (saved[MOMENTS[0]], saved[MOMENTS[1]])
            matrix.lay()

    def renewed(self) -> dict[str, Any]:
        """The state for a checkpoint; a run that goes on from there holds the same."""
        return self.state_dict()


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor)) ** 2
