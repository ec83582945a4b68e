"""Who prunes during a search: processes of this machine, or a Ray cluster."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from sparsecircuits.errors import TaskTooHard, UserError
from sparsecircuits.models.transformer import SparseTransformer
from sparsecircuits.pruning.config import PruneConfig
from sparsecircuits.tasks import Task

Submit = Callable[[PruneConfig], "Future[str | None]"]


@dataclass(frozen=True)
class Job:
    """What all trials of a search share."""

    model: SparseTransformer
    task: Task
    target_loss: float
    means: torch.Tensor

    def run(self, config: PruneConfig) -> str | None:
        """The JSON of the circuit that these settings find; None if there is none."""
        from sparsecircuits.circuits.discovery import prune

        try:
            circuit = prune(self.model, self.task, self.target_loss, config=config, means=self.means)
        except TaskTooHard:
            return None
        return circuit.model_dump_json()


@contextlib.contextmanager
def pool(job: Job, workers: int | str, most: int) -> Iterator[tuple[Submit, int]]:
    """Yield (submit, how many trials run at a time). workers: a number of processes, or "ray"."""
    if workers == "ray":
        with _ray_pool(job) as found:
            yield found
        return
    try:
        size = min(int(workers), most)
    except ValueError as error:
        raise UserError(f"workers is a number of processes or ray, not {workers!r}") from error
    if size < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    threads = max(1, torch.get_num_threads() // size)  # what this process may use, shared out
    executor = ProcessPoolExecutor(size, multiprocessing.get_context("spawn"), _start, (job, threads))
    try:
        yield (lambda config: executor.submit(_trial, config)), size
    finally:
        executor.shutdown(cancel_futures=True)


_JOB: list[Job] = []
"""The job of this worker process."""


def _start(job: Job, threads: int) -> None:
    torch.set_num_threads(threads)
    _JOB[:] = [job]


def _trial(config: PruneConfig) -> str | None:
    return _JOB[0].run(config)


def _ray_trial(job: Job, config: PruneConfig) -> str | None:
    torch.set_num_threads(1)
    return job.run(config)


@contextlib.contextmanager
def _ray_pool(job: Job) -> Iterator[tuple[Submit, int]]:
    """A trial per CPU of the cluster that RAY_ADDRESS names, or of a local one that ends with the search."""
    try:
        import ray
    except ImportError as error:
        raise UserError("--workers ray needs Ray: pip install 'sparsecircuits[cluster]'") from error
    began = not ray.is_initialized()
    if began:
        try:
            alone: dict[str, Any] = (
                {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}
            )
            ray.init(log_to_driver=False, **alone)
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from error
    try:
        remote: Any = ray.remote(num_cpus=1, max_retries=3)(_ray_trial)
        shared = ray.put(job)
        size = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield (lambda config: remote.remote(shared, config).future()), size
    finally:
        if began:
            ray.shutdown()
