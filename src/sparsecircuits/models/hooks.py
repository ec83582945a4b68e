"""Record and change activations by name. Thin wrappers around PyTorch forward hooks on sites."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from sparsecircuits.errors import UserError
from sparsecircuits.models.sites import Site
from sparsecircuits.models.transformer import SparseTransformer

_PREFIX = "blocks."


def hook_points(model: SparseTransformer) -> dict[str, Site]:
    """All sites by their published names: `0.attn.q`, `0.mlp.post_act`, …, `final_resid`."""
    return {name.removeprefix(_PREFIX): module for name, module in model.named_modules() if isinstance(module, Site)}


def _matching(model: SparseTransformer, pattern: str) -> dict[str, Site]:
    points = hook_points(model)
    try:
        found = {name: site for name, site in points.items() if re.fullmatch(pattern, name)}
    except re.error as error:
        raise UserError(f"{pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise UserError(f"no hook point matches {pattern!r}; the model has {', '.join(points)}")
    return found


@contextlib.contextmanager
def record(model: SparseTransformer, pattern: str = ".*") -> Iterator[dict[str, Tensor]]:
    """Yield a dict that the next forward passes fill: {name: activation [B, T, width]}.

    pattern: a regular expression that a whole name must match. Tensors keep their graph (detach them, or
    run under no_grad). A later pass overwrites an earlier one. Raises UserError when nothing matches.
    """
    recorded: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            recorded[name] = output

        return hook

    with contextlib.ExitStack() as stack:
        for name, site in _matching(model, pattern).items():
            stack.callback(site.register_forward_hook(keep(name)).remove)
        yield recorded


@contextlib.contextmanager
def intervene(model: SparseTransformer, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """While open, replace activations: {name: fn}, fn maps [B, T, width] to the same shape.

    Interventions nest (the outer one acts first) and leave nothing behind, also after an exception.
    Raises UserError for an unknown name, ValueError when a function changes the shape.
    """
    points = hook_points(model)
    unknown = [name for name in functions if name not in points]
    if unknown:
        raise UserError(f"no hook point {unknown[0]!r}; the model has {', '.join(points)}")

    def apply(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            changed = function(output)
            if changed.shape != output.shape:
                raise ValueError(f"{name}: the function turned {tuple(output.shape)} into {tuple(changed.shape)}")
            return changed

        return hook

    with contextlib.ExitStack() as stack:
        for name, function in functions.items():
            stack.callback(points[name].register_forward_hook(apply(name, function)).remove)
        yield
