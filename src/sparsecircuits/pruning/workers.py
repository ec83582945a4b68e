"""Who does many prunings: processes of this machine, or a Ray cluster."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from sparsecircuits.errors import UserError

Run = Callable[[Any], Any]
_NO_GUARD = 87  # exit status
Submit = Callable[[Any], "Future[Any]"]


@contextlib.contextmanager
def pool(run: Run, workers: int | str, most: int) -> Iterator[tuple[Submit, int]]:
    """Yield (submit, how many calls run at a time): submit(x) is the future of run(x), which both can be pickled.

    workers: a number of processes (no more than `most`), or "ray".
    """
    refuse_in_worker()
    if workers == "ray":
        with _ray_pool(run) as found:
            yield found
        return
    try:
        size = min(int(workers), most)
    except ValueError as error:
        raise UserError(f"workers is a number of processes or ray, not {workers!r}") from error
    if size < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    threads = max(1, torch.get_num_threads() // size)  # what this process may use, shared out
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(size, context, _start, (run, threads, os.getpid()))

    def submit(x: Any) -> "Future[Any]":
        with _without_interrupts():  # a worker, which this starts, inherits that: Ctrl-C is this process's business
            return executor.submit(_call, x)

    started: dict[int, Any] = {}

    def submit_noted(x: Any) -> "Future[Any]":
        future = submit(x)
        started.update(executor._processes or {})
        return future

    try:
        yield submit_noted, size
    except BrokenProcessPool:
        for worker in started.values():
            worker.join(5)
        if any(worker.exitcode == _NO_GUARD for worker in started.values()):
            raise UserError(
                "each worker runs the script that started it again: put what it does, from loading the model on, "
                'under `if __name__ == "__main__":`, or give workers=1'
            ) from None
        raise UserError("a worker was killed: out of memory? try fewer workers") from None
    except BaseException:
        for worker in list((executor._processes or {}).values()):
            worker.kill()  # what they are at is of no use any more
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def refuse_in_worker() -> None:
    """End a worker that runs its parent's script again and so comes to where that starts workers: there is no
    `if __name__ == "__main__":` in it. The parent tells the user, once."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_NO_GUARD)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """While open, Ctrl-C waits, and processes that are started never get it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_RUN: list[Run] = []
"""What this worker process is for."""


def _start(run: Run, threads: int, parent: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _RUN[:] = [run]


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a pruning that nobody waits for takes the cores for minutes.

    The parent says its number itself: it may be gone before this process could ask for it.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(x: Any) -> Any:
    return _RUN[0](x)


def _ray_call(run: Run, x: Any) -> Any:
    torch.set_num_threads(1)
    return run(x)


@contextlib.contextmanager
def _ray_pool(run: Run) -> Iterator[tuple[Submit, int]]:
    """A call per CPU of the cluster that RAY_ADDRESS names, or of a local one that ends with this."""
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
        remote: Any = ray.remote(num_cpus=1, max_retries=3)(_ray_call)
        shared = ray.put(run)
        size = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield (lambda x: remote.remote(shared, x).future()), size
    finally:
        if began:
            ray.shutdown()
