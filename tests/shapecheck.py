"""What `make test-shapes` checks at run time: arguments and results whose annotation says a shape, nothing else.

The rest of the annotations is mypy's; some of it (protocols of libraries, `Self`) cannot be checked while running.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, BeartypeStrategy, beartype
from jaxtyping import AbstractArray


def has_shape(hint: object) -> bool:
    """Whether an annotation is a jaxtyping array, or is made of some: list[Float[Tensor, " n"]]."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return typing.get_origin(hint) is not Callable and any(map(has_shape, typing.get_args(hint)))


def shapes_only(checked: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shapes checked, all items of lists included."""
    hints = checked.__annotations__
    checked.__annotations__ = {name: hint if has_shape(hint) else Any for name, hint in hints.items()}
    return beartype(conf=BeartypeConf(strategy=BeartypeStrategy.O1))(checked)
