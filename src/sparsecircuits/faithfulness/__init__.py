"""How far a circuit is the circuit: measures, null controls, the card, its verdict, and a table of many circuits.

The package has the name of its function and can be called as it: `sparsecircuits.faithfulness(model, circuit, task)`
(see `report.faithfulness`) works before and after any of its modules is imported, which puts the package in that place.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from sparsecircuits.faithfulness.report import faithfulness

        return faithfulness(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
