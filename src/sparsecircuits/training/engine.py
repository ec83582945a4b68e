"""How a model is spread over processes: one process alone or replicas (DDP), or shards (FSDP2)."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparsecircuits.errors import UserError
from sparsecircuits.models.transformer import SparseTransformer, count_parameters, sparse_matrices
from sparsecircuits.sparsity.projection import Projector
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training.checkpoints import load_file, load_shards, save_checkpoint, save_shards
from sparsecircuits.training.compact import Matrix, take_out
from sparsecircuits.training.config import TrainConfig
from sparsecircuits.training.distributed import World, local
from sparsecircuits.training.held import HeldWeights
from sparsecircuits.training.precision import autocast_loss
from sparsecircuits.training.sharded import ShardedProjector


class _Loss(nn.Module):
    """A model's training loss as a module, which is what DDP wraps."""

    def __init__(self, model: SparseTransformer, bfloat16: bool) -> None:
        super().__init__()
        self.model, self.low_precision = model, bfloat16

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return autocast_loss(self.model, inputs, targets, self.low_precision)


class Engine:
    """A whole model in every process. Several processes hold bit-equal replicas: the same start, the same
    summed gradient, the same arithmetic."""

    shards: World | None = None
    """The processes that gradients and weights are spread over."""

    def __init__(self, model: SparseTransformer, config: TrainConfig, world: World) -> None:
        self.model, self.world, self.keep = model, world, config.keep_checkpoints
        model.checkpoint_activations = config.checkpoint_activations
        self.compiled = config.compile == "on" or (config.compile == "auto" and model.device.type == "cuda")
        if self.compiled:
            _require_compiler(model.device)
            for block in model.blocks:
                block.compile()
        self._spread()
        self.low_precision = config.dtype == "bfloat16"
        self._loss: nn.Module = _Loss(model, self.low_precision)
        self._bare = self._loss
        self.holding = False
        """Whether weights are held outside the model, where DDP does not see them: then gradients are exchanged by
        `exchange`."""
        # Compact weights are no parameters of the model: their gradients, and all others, go through `exchange`.
        if world.size > 1 and self.shards is None and config.sparsity.state != "compact":
            self._loss = DistributedDataParallel(
                self._loss,
                device_ids=[model.device.index] if model.device.type == "cuda" else None,
                broadcast_buffers=False,
            )

    def _spread(self) -> None:
        """Replicas need nothing: DDP sends the first one's weights to all."""

    def projector(self, config: SparsityConfig) -> Projector | ShardedProjector:
        """What holds the weights to their budget."""
        return Projector(self.model, config)

    @property
    def direct(self) -> bool:
        """Whether layers can compute with nonzeros that are held outside the model."""
        plain = self.model.device.type == "cpu" and not self.compiled
        return plain and not self.low_precision and self.shards is None

    def take_out(self, config: TrainConfig) -> list[Matrix]:
        """For `sparsity.state` compact: the matrices that are sparse enough, no longer in the model. Raises UserError
        where training with them is not supported."""
        if config.sparsity.state != "compact":
            return []
        if self.shards is not None:
            raise UserError("sparsity.state compact keeps the nonzeros in every process: use --parallel ddp")
        if not self.direct:
            raise UserError(
                "sparsity.state compact is for float32 on a CPU, not compiled: --dtype float32 --compile off"
            )
        return take_out(self.model, config.sparsity)

    def held_weights(self, names: Iterable[str], adam: torch.optim.Adam, config: TrainConfig) -> HeldWeights:
        """What makes the steps between two with dense gradients cheap."""
        return HeldWeights(self.model, names, adam, config.optimizer, direct=self.direct, shards=self.shards)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of a micro-batch [B, T]."""
        return (self._bare if self.holding else self._loss)(inputs, targets)

    def backward(self, loss: Tensor, share: float) -> None:
        """Add the gradient of share · loss to this process's."""
        # DDP and FSDP average over processes what should be summed.
        (loss * (share if self.holding else share * self.world.size)).backward()

    def exchange(self, gradients: Sequence[Tensor]) -> None:
        """Sum gradients over the processes, where neither DDP nor FSDP did."""
        if self.world.size == 1 or not self.holding:
            return
        together = self.world.sum_(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def waiting(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """While more micro-batches of the step follow, gradients need not be exchanged."""
        if more and not self.holding and isinstance(self._loss, DistributedDataParallel):
            return self._loss.no_sync()
        return contextlib.nullcontext()

    def uncompiled(self) -> contextlib.AbstractContextManager[Any]:
        """While open, compiled blocks run eagerly: they would not notice hooks."""
        return torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()

    def nonzeros(self) -> int:
        """Nonzero entries of the sparse matrices: the paper's L0."""
        return count_parameters(self.model)[1]

    def save(
        self, run: Path, step: int, adam: torch.optim.Adam, gates: dict[str, Any] | None, state: dict[str, Any]
    ) -> None:
        """Write a checkpoint. Raises UserError if the replicas are no longer the same."""
        if self.world.size > 1:
            apart = ((state["held"] or {}).get("matrices") or {}).values()
            weights = [*self.model.parameters(), *(matrix["values"] for matrix in apart)]
            total = sum(int(weight.detach().view(torch.int32).sum()) for weight in weights)
            fault = "do all machines have the same hardware and the same versions? The last checkpoint is kept"
            self.world.require_same(total, f"the processes' weights differ at step {step}: {fault}")
        everything = {"model": self.model.state_dict(), "adam": adam.state_dict(), "gates": gates, **state}
        self.world.first(lambda: save_checkpoint(run, step, everything, self.keep) and None)

    def load(self, path: Path, adam: torch.optim.Adam) -> dict[str, Any]:
        """Take over a checkpoint's weights and moments; returns the rest of its state."""
        if path.is_dir():
            return self._load_shards(path, adam)
        state = load_file(path)
        self.model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        return state

    def _load_shards(self, path: Path, adam: torch.optim.Adam) -> dict[str, Any]:
        tensors, steps = _tensors(self.model, adam)
        state = load_shards(path, tensors)
        for step in steps:
            step.fill_(state["adam_step"])
        return state

    def finished(self) -> SparseTransformer:
        """The whole model, plain, in every process."""
        self.model.checkpoint_activations = False
        return self._rebuilt() if self.compiled else self.model

    @torch.no_grad()
    def _rebuilt(self) -> SparseTransformer:
        model = SparseTransformer(self.model.config).to(self.model.device)
        whole = dict(model.named_parameters())
        for name, parameter in self.model.named_parameters():
            full = getattr(parameter, "full_tensor", None)
            whole[name].copy_(parameter if full is None else full())
        for buffer, mine in zip(model.buffers(), self.model.buffers(), strict=True):  # of frozen nodes
            buffer.copy_(mine)
        model.tokenizer, model.name, model.corpus = self.model.tokenizer, self.model.name, self.model.corpus
        return model


class ShardedEngine(Engine):
    """Each process holds its rows of every tensor, of the gradient and of Adam's moments (FSDP2); a layer's
    weights are gathered while it computes."""

    def __init__(self, model: SparseTransformer, config: TrainConfig, world: World) -> None:
        if config.sparsity.sparsifier != "topk":
            raise UserError("sparsifier hard_concrete needs whole matrices in every process: use --parallel ddp")
        if config.model.frozen_nodes:
            raise UserError("checkpoints of shards do not hold frozen nodes: use --parallel ddp")
        self.shards = world
        super().__init__(model, config, world)

    def _spread(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        for parameter in self.model.parameters():
            torch.distributed.broadcast(parameter.detach(), src=0)
        mesh = init_device_mesh(self.model.device.type, (self.world.size,))
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        # By default the outermost weights would stay gathered after a pass without a backward one.
        fully_shard(self.model, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(self.model, "loss")

    def projector(self, config: SparsityConfig) -> ShardedProjector:
        return ShardedProjector(self.model, config, self.world)

    @torch.no_grad()
    def nonzeros(self) -> int:
        mine = sum(int(local(p).count_nonzero()) for p in sparse_matrices(self.model).values())
        return int(self.world.total(mine)[0])

    def save(
        self, run: Path, step: int, adam: torch.optim.Adam, gates: dict[str, Any] | None, state: dict[str, Any]
    ) -> None:
        tensors, steps = _tensors(self.model, adam)
        save_shards(run, step, tensors, {**state, "adam_step": int(steps[0])}, self.keep, self.world)

    @torch.no_grad()
    def load(self, path: Path, adam: torch.optim.Adam) -> dict[str, Any]:
        if path.is_dir():
            return self._load_shards(path, adam)
        state = load_file(path)
        tensors, steps = _tensors(self.model, adam)
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        whole = {f"model.{name}": tensor for name, tensor in state["model"].items()}
        for name, moments in zip(names, state["adam"]["state"].values(), strict=True):
            whole.update({f"adam.{name}.{key}": moments[key] for key in ("exp_avg", "exp_avg_sq")})
        for name, tensor in tensors.items():
            mine = local(tensor)
            counts = self.world.gather(mine.shape[0])
            mine.copy_(whole[name][sum(counts[: self.world.rank]) :][: mine.shape[0]])
        for step in steps:
            step.fill_(int(next(iter(state["adam"]["state"].values()))["step"]))
        return state

    def finished(self) -> SparseTransformer:
        return self._rebuilt()


def _tensors(model: SparseTransformer, adam: torch.optim.Adam) -> tuple[dict[str, Tensor], list[Tensor]]:
    """All weights and moments by name, and Adam's step counters."""
    tensors: dict[str, Tensor] = {}
    steps = []
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        if parameter.requires_grad:
            state = adam.state[parameter]
            if not state:  # as Adam itself begins
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            steps.append(state["step"])
            tensors |= {f"adam.{name}.{key}": state[key].detach() for key in ("exp_avg", "exp_avg_sq")}
    return tensors, steps


def _require_compiler(device: torch.device) -> None:
    """Raise UserError where torch.compile cannot work: on a CPU it needs a C++ compiler."""
    if device.type == "cpu" and "CXX" not in os.environ and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise UserError("compile on needs a C++ compiler: install g++, or leave compile at auto")


def open_engine(model: SparseTransformer, config: TrainConfig, world: World) -> Engine:
    """The engine of a config: `parallel` matters where there are several processes."""
    if world.size > 1 and config.parallel == "fsdp":
        return ShardedEngine(model, config, world)
    return Engine(model, config, world)
