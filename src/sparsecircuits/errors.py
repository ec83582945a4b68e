"""Exceptions for what a user can put right, and how a wrong name is told."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input or a bad environment, told in one line that says what to do.

    The command line prints the message alone (exit code 1); in Python it is an ordinary ValueError.
    """


class NoSuchNode(UserError):
    """A name that is no node's, or that of a node that a model lacks."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came, and what was done so far is saved; the message says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number
        """The signal's."""


class TaskTooHard(UserError):
    """The whole model misses the target loss on a task, so that no circuit can hold it."""


def near(name: object, known: Iterable[str]) -> str:
    """ " (did you mean a or b?)": the known names that are nearest to a wrong one; "" if none is near."""
    found = difflib.get_close_matches(str(name)[:80], list(known), n=3)
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def no_such(what: str, name: object, known: Iterable[str], there_are: str = "there are") -> str:
    """The message for a wrong name: the nearest names, then all of them."""
    known = list(known)
    return f"{what} {str(name)[:80]!r}{near(name, known)}; {there_are} {', '.join(known)}"
