"""Which implementation of an operator runs: the fastest for its input, its plain-PyTorch reference, or one's own.

    with kernels.use("reference"):                       every operator by its definition
        loss = model.loss(ids, targets)
    with kernels.use("auto", abstopk=mine):              one operator by a function of one's own
        ...

What `use` opens holds for the thread (or the asyncio task) that opened it, to the end of the `with`. A backward pass
runs what its forward pass chose. Blocks that torch.compile has taken keep the operators they were compiled with.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar

import torch

from sparsecircuits.errors import no_such

P = ParamSpec("P")
R = TypeVar("R")
_references: dict[str, Callable[..., Any]] = {}
_NOTHING: Mapping[str, Callable[..., Any]] = MappingProxyType({})
_chosen: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("kernels", default=_NOTHING)


def operator(name: str, reference: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate an operator's fastest implementation, so that `use` can put another in its place."""

    def decorate(fastest: Callable[P, R]) -> Callable[P, R]:
        _references[name] = reference

        @functools.wraps(fastest)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return fastest(*args, **kwargs)
            return _chosen.get().get(name, fastest)(*args, **kwargs)

        return chosen

    return decorate


def operators() -> list[str]:
    """The names of all operators that can be chosen."""
    return sorted(_references)


@contextlib.contextmanager
def use(choice: Literal["auto", "reference"], /, **implementations: Callable[..., Any]) -> Iterator[None]:
    """While open, operators run as chosen; then, also after an error, as before.

    choice: "auto", the fastest implementation for each input (on a CPU the compiled kernels, on CUDA those of Triton),
    or "reference", the definition in plain PyTorch, on any device, differentiable as often as PyTorch is.
    implementations: functions of the operators' signatures by the names in `operators()`, instead of these. An inner
    `use` replaces the whole choice of the outer one. Raises ValueError for other names.
    """
    if choice not in ("auto", "reference"):
        raise ValueError(no_such("no implementation", choice, ["auto", "reference"]))
    for name in implementations:
        if name not in _references:
            raise ValueError(no_such("no operator", name, operators()))
    before = _chosen.set({**(_references if choice == "reference" else _NOTHING), **implementations})
    try:
        yield
    finally:
        _chosen.reset(before)
