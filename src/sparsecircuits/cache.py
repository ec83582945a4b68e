"""Where this program keeps what it can make or fetch again: a folder for each corpus's tokens, `models` for what was
downloaded, `kernels` for what was compiled. Imports no torch."""

import os
from pathlib import Path

from sparsecircuits.errors import UserError

VARIABLE = "SPARSECIRCUITS_CACHE"


def cache_root() -> Path:
    """`$SPARSECIRCUITS_CACHE`, or `~/.cache/sparsecircuits`.

    Raises UserError for a user without a home: the working directory or /tmp would not do, since compiled kernels are
    kept here too, and what others can write must not be run.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "sparsecircuits"
    except RuntimeError as error:
        raise UserError(f"this user has no home folder: set {VARIABLE} to a folder for what can be kept") from error


def models_cache() -> Path:
    """Where downloaded models are kept."""
    return cache_root() / "models"


def kernels_cache() -> Path:
    """Where compiled kernels are kept, unless NUMBA_CACHE_DIR names another place."""
    return cache_root() / "kernels"
