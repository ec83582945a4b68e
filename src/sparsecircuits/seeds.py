"""What a seed is: one rule for every place that takes one."""

import hashlib
import operator

from sparsecircuits.errors import UserError

BITS = 64


def checked_seed(seed: int) -> int:
    """The seed. Raises UserError unless it is a whole number that 64 bits hold: 0 to 2^64 - 1."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < 2**BITS:
        raise UserError(f"a seed is a whole number from 0 to 2^{BITS} - 1, not {str(seed)[:40]}")
    return number


def derived_seed(seed: int, step: int) -> int:
    """A seed of its own, of 64 bits, for each step (below 2^32) of a seeded run."""
    if seed < 2**32:
        return (seed << 32) + step
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:8])
