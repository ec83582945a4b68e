"""`njit` for the CPU kernels, with a cache on disk that knows when machine code is out of date.

Numba keys its cache by the outer function's file alone. A kernel inlines helpers of other files, so an upgrade would go
on running the old machine code; here the key is the package's version and the text of every kernel. The cache lies in
`$NUMBA_CACHE_DIR` or under the cache of this program. Where nothing can be written, or what lies there is damaged,
kernels are compiled as if there were no cache.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching, config

import sparsecircuits
from sparsecircuits.cache import kernels_cache
from sparsecircuits.errors import UserError


@functools.cache
def kernels_key() -> str:
    """Version of the package and hash of `kernels/*.py`: equal keys, equal machine code."""
    text = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{sparsecircuits.__version__}-{text.hexdigest()}"


@functools.cache
def _folder() -> Path:
    """One for each installation: an upgrade in place writes over what is out of date, other checkouts have theirs."""
    given = config.CACHE_DIR  # type: ignore[attr-defined]
    root = Path(given) if given else kernels_cache()
    return root / hashlib.sha256(os.fsencode(Path(__file__).resolve().parent)).hexdigest()[:16]


class _Locator(caching._CacheLocator):
    """Says where a kernel's machine code lies, and for which sources it was made."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(_folder())

    def get_source_stamp(self) -> str:
        return kernels_key()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Any, file: str) -> "_Locator":
        return cls(function, file)


class _CompileResults(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(caching.FunctionCache):
    _impl_class = _CompileResults

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code for a signature, or None: not there, made by another version, or damaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged bytes make unpickling raise anything at all
            self._forget()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep machine code, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception:  # a full disk, or a damaged index
            self._forget()

    def _forget(self) -> None:
        try:
            self.flush()
        except Exception:
            self.disable()


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit(nogil=True, **options)` with the cache above; with or without parentheses."""
    if function is None:
        return functools.partial(kernel, **options)
    compiled = njit(nogil=True, **options)(function)
    if hasattr(compiled, "enable_caching"):  # not so where NUMBA_DISABLE_JIT is set
        with contextlib.suppress(UserError):  # no folder for a cache
            compiled._cache = _Cache(function)
    return compiled
