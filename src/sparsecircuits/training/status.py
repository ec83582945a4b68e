"""Where a run stands, in numbers and in a line. Imports no torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """A run after one of its steps."""

    step: int
    progress: float
    """Share of the run that is done."""
    loss: float
    """Training loss of the step, nats a token."""
    density: float
    tokens_per_second: float
    seconds_left: float
    val_loss: float | None

    def describe(self) -> str:
        """The line of a progress display."""
        validation = "" if self.val_loss is None else f" · validation {self.val_loss:.3f}"
        return (
            f"step {self.step} · loss {self.loss:.3f}{validation} · density {self.density:.1%} · "
            f"{self.tokens_per_second:,.0f} tokens/s · {duration(self.seconds_left)} left"
        )


def duration(seconds: float) -> str:
    """1:05 or 2:01:05; a dash when unknown."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
