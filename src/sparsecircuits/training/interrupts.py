"""Ctrl-C and SIGTERM as a wish that training grants at the end of a step."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While open, `asked` is the number of the signal that asked training to stop, or 0.

    A second one ends the process at once, as if this were not there; not so under torchrun (patient), which passes on
    what the terminal has sent to everybody already, and has a patience of its own. Signals that are ignored stay
    ignored, and outside the main thread there is nothing to catch.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked = 0
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *error: object) -> None:
        self._restore()
