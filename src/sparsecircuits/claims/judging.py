"""What the rules of verdicts have in common. Free of torch."""

import math
import statistics
from collections.abc import Iterable

from sparsecircuits.claims.schema import Row, Rows, Verdict

FEWEST_SEEDS = 3
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t, two-sided 95%, by how many values there are."""


def unsaid(reason: str) -> Verdict:
    """The verdict where the measurement does not bear on the claim."""
    return Verdict(word="cannot be said at this scale", reason=reason)


def verdict(good: bool, half: bool, reason: str) -> Verdict:
    """reproduced if good, else partly if half, else not."""
    return Verdict(word="reproduced" if good else "partly" if half else "not reproduced", reason=reason)


def number(row: Row, name: str) -> float | None:
    """A row's figure; None where it has none."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def numbers(rows: Rows, name: str) -> list[float]:
    """The rows' figures of one name, without those that are not defined."""
    return [value for row in rows if (value := number(row, name)) is not None]


def where(rows: Rows, **fields: object) -> list[Row]:
    """The rows that have these fields."""
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; NaN of none."""
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def ratios(rows: Rows, above: str, below: str) -> list[float]:
    """above / below of each row where both are there and positive."""
    pairs = [(number(row, above), number(row, below)) for row in rows]
    return [a / b for a, b in pairs if a and b]


def interval(values: list[float]) -> tuple[float, float]:
    """The 95% interval of a mean by Student's t. Needs 2 to 10 values."""
    mean = statistics.fmean(values)
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and 95% interval in words; the mean alone of one value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) not in T_95:
        return mean
    low, high = interval(values)
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def by_seed(rows: Rows, variant: str, figure: str) -> dict[int, float]:
    """A variant's figure by seed of its training; where it has none, the seed is left out."""
    found = {}
    for row in where(rows, variant=variant):
        seed, value = number(row, "seed"), number(row, figure)
        if seed is not None and value is not None:
            found[int(seed)] = value
    return found


def differences(rows: Rows, variant: str, other: str, figure: str = "validation loss") -> list[float]:
    """variant - other of a figure, seed by seed."""
    a, b = by_seed(rows, variant, figure), by_seed(rows, other, figure)
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
