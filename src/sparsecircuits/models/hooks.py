"""Record and change activations by name. Thin wrappers around PyTorch forward hooks on sites."""

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from sparsecircuits.errors import UserError, no_such

# What torch.compile, DDP and checkpoint wrappers put into module names, and the list that the layers are in.
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|module|_checkpoint_wrapped_module|_fsdp_wrapped_module)(?=\.)")
_PREFIX = "blocks."
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{kind}" for kind in _HOOKS)


def hook_points(model: nn.Module) -> dict[str, nn.Module]:
    """All sites by their published names: `0.attn.q`, `0.mlp.post_act`, …, `final_resid`. Takes our model, the
    Hugging Face one, and either inside torch.compile, DDP or a checkpoint wrapper."""
    return {
        _WRAPPERS.sub("", name).removeprefix(".").removeprefix(_PREFIX): module
        for name, module in model.named_modules()
        if getattr(module, "is_site", False)
    }


def is_watched(module: nn.Module) -> bool:
    """Whether anything hangs on a module that must see its call: hooks of any kind, its own or every module's, or
    another `forward` in place of the class's."""
    own = vars(module)
    return "forward" in own or any(own[kind] for kind in _HOOKS) or any(vars(_module)[kind] for kind in _GLOBAL_HOOKS)


@contextlib.contextmanager
def record(model: nn.Module, wanted: str | Iterable[str] = ".*") -> Iterator[dict[str, Tensor]]:
    """Yield a dict that the next forward passes of this thread fill: {name: activation [B, T, width]}.

    wanted: a regular expression that a whole name must match, or the names, none perhaps. Tensors keep their graph
    (detach them, or run under no_grad). A later pass overwrites an earlier one; the second pass of activation
    checkpointing does not. What an intervention of the same pass changes in place stays as it was recorded. While open,
    compiled modules run uncompiled; a hook that is put on a module by hand, with `register_forward_hook`, is ignored by
    what was compiled before. Raises UserError when nothing matches, or for an unknown name.
    """
    recorded: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], None]:
        def function(output: Tensor) -> None:
            if not _in_backward():
                recorded[name] = output
                if not torch.compiler.is_compiling():
                    output._is_recorded = True  # type: ignore[attr-defined]

        return function

    with _attached({site: keep(name) for name, site in _wanted(model, wanted).items()}):
        yield recorded


@contextlib.contextmanager
def intervene(model: nn.Module, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """While open, replace activations in this thread's passes: {name: fn}, fn maps [B, T, width] to the same
    shape.

    Interventions nest (the outer one acts first) and leave nothing behind, also after an exception. Under
    activation checkpointing, call backward() while still inside: it runs the forward pass again. While open,
    compiled modules run uncompiled. Raises UserError for an unknown name, ValueError when a function changes
    the shape.
    """
    points = _named(model, functions)

    def apply(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def checked(output: Tensor) -> Tensor:
            if getattr(output, "_is_recorded", False):
                output = output.clone()  # the function may write into it
            changed = function(output)
            if changed.shape != output.shape:
                raise ValueError(f"{name}: the function turned {tuple(output.shape)} into {tuple(changed.shape)}")
            return changed

        return checked

    with _attached({points[name]: apply(name, function) for name, function in functions.items()}):
        yield


def _wanted(model: nn.Module, wanted: str | Iterable[str]) -> dict[str, nn.Module]:
    if not isinstance(wanted, str):
        return _named(model, wanted)
    points = hook_points(model)
    try:
        found = {name: site for name, site in points.items() if re.fullmatch(wanted, name)}
    except re.error as error:
        raise UserError(f"{wanted!r} is not a regular expression: {error}") from error
    if not found:
        raise UserError(no_such("no hook point matches", wanted, points, "the model has"))
    return found


def _named(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    points = hook_points(model)
    names = list(names)
    unknown = [name for name in names if name not in points]
    if unknown:
        raise UserError(no_such("no hook point", unknown[0], points, "the model has"))
    return {name: points[name] for name in names}


@contextlib.contextmanager
def _attached(functions: Mapping[nn.Module, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
    """Call functions on the outputs of modules, in passes of this thread, until closed."""
    scope = _Scope()

    def hook_of(function: Callable[[Tensor], Tensor | None]) -> Callable[[nn.Module, tuple, Tensor], Tensor | None]:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor | None:
            return function(output) if scope.acts() else None

        return hook

    with contextlib.ExitStack() as stack:
        stack.callback(scope.close)
        stack.enter_context(_uncompiled())
        for module, function in functions.items():
            stack.callback(module.register_forward_hook(hook_of(function)).remove)
        yield


class _Scope:
    """Whether a hook should act now: until it is closed, in the thread that opened it. A backward pass on an
    accelerator recomputes checkpointed activations in a thread of PyTorch's own; it counts as the opener's."""

    def __init__(self) -> None:
        self._open, self._thread = True, threading.get_ident()

    def acts(self) -> bool:
        if torch.compiler.is_compiling():  # compiled inside the scope: traced by the opener
            return self._open
        if threading.get_ident() == self._thread:
            return self._open
        return self._open and _in_backward() and isinstance(threading.current_thread(), threading._DummyThread)

    def close(self) -> None:
        self._open = False


def _in_backward() -> bool:
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


_lock = threading.Lock()
_open_scopes = 0
_stance: contextlib.AbstractContextManager | None = None


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """While any scope is open, compiled code runs eagerly: it would not notice a new hook, since it is not
    guarded on hooks. Free when nothing has been compiled in this process."""
    global _open_scopes, _stance
    with _lock:
        _open_scopes += 1
        if _stance is None and "torch._dynamo" in sys.modules:
            _stance = torch.compiler.set_stance("force_eager")
            _stance.__enter__()
    try:
        yield
    finally:
        with _lock:
            _open_scopes -= 1
            if _open_scopes == 0 and _stance is not None:
                _stance.__exit__(None, None, None)
                _stance = None
