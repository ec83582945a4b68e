"""What keeps PyTorch's compiler out of processes that compile nothing: importing it takes two seconds."""

import sys
from collections.abc import Callable
from typing import Any

from torch.library import CustomOpDef


def wait_for_compiler() -> None:
    """PyTorch calls the function of an operator as the compiler's `disable` would, and imports the compiler for that at
    the first call, unless the function has a `__dynamo_disable`. Here it gets one that does without until something
    else has imported the compiler. A version of PyTorch that looks elsewhere imports it as before."""
    own = [module for name, module in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    for operator in [each for module in own for each in vars(module).values() if isinstance(each, CustomOpDef)]:
        for implementation in getattr(operator, "_backend_fns", {}).values():
            function = getattr(implementation, "__wrapped__", None)
            if function is not None:
                function.__dynamo_disable = _waiting(function)


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        import torch._dynamo

        disabled: Callable[..., Any] = torch._dynamo.disable(function, True, wrapping=False)
        function.__dynamo_disable = disabled  # type: ignore[attr-defined]
        return disabled(*args, **kwargs)

    return called
