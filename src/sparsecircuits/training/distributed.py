"""Processes that train one model together (torchrun): who they are, and the few numbers they exchange."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sparsecircuits.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # preparing a corpus, which the others wait for, can take long


@dataclass(frozen=True)
class World:
    """This process among those that train together; the default is one process alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number on this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def device(self, name: str | None = None) -> torch.device:
        """Where this process computes: its own GPU, if there are any, or `name`."""
        if name is not None:
            return torch.device(name)
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def parts(self, rows: int, accumulate: int) -> list[slice]:
        """The micro-batches of this process: its part of a global batch's rows, cut in `accumulate`.

        Together the processes take every row once. Raises UserError when a part would be empty.
        """
        count = self.size * accumulate
        if rows < count:
            raise UserError(
                f"a batch of {rows} sequences cannot be cut in {count} ({self.size} processes, {accumulate} "
                "micro-batches each): raise batch_size or lower accumulate"
            )
        cuts = [place * rows // count for place in range(count + 1)]
        mine = range(self.rank * accumulate, (self.rank + 1) * accumulate)
        return [slice(cuts[place], cuts[place + 1]) for place in mine]

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Each number summed over the processes, in float64."""
        if self.size == 1:
            return numbers
        summed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(summed)
        return tuple(summed.tolist())

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def of_first(self, value: T) -> T:
        """The first process's value (small)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process alone and return its (small) result in all.

        All wait for it, and a UserError in it is raised in all.
        """
        if self.size == 1:
            return make()
        result, failure = None, None
        if self.is_first:
            try:
                result = make()
            except UserError as error:
                failure = str(error)
        result, failure = self.of_first((result, failure))
        if failure is not None:
            raise UserError(failure)
        return result  # type: ignore[return-value]

    def first_here(self, make: Callable[[], T]) -> T:
        """Call `make` in every process, but first in one of each machine (which fills that machine's caches)."""
        if self.size == 1:
            return make()
        made = make() if self.local_rank == 0 else None
        self.wait()
        return made if made is not None else make()

    def gather(self, value: T) -> list[T]:
        """The (small) values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def require_same(self, value: Any, fault: str) -> None:
        """Raise UserError(fault) in all processes if their values differ."""
        if any(other != value for other in self.gather(value)):
            raise UserError(fault)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            self.total(0.0)


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started, or this one alone; inside another `joined`, the same ones.

    gloo carries what is on a CPU and NCCL what is on GPUs. Raises UserError when a machine has fewer GPUs
    than processes.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
        return
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= set(os.environ) or os.environ["WORLD_SIZE"] == "1":
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"this machine has {torch.cuda.device_count()} GPUs: lower torchrun's --nproc-per-node")
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()
        # gloo's threads may still have to let go of a tensor, which needs Python: if it ends before, they abort it.
        time.sleep(0.3)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other tensor itself."""
    to_local = getattr(tensor, "to_local", None)  # only a DTensor has it, and importing DTensor takes a while
    return tensor if to_local is None else to_local()
