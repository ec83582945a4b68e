"""Exceptions for what a user can put right."""


class UserError(ValueError):
    """Bad input or a bad environment, told in one line that says what to do.

    The command line prints the message alone (exit code 1); in Python it is an ordinary ValueError.
    """


class NoSuchNode(UserError):
    """A name that is no node's, or that of a node that a model lacks."""


class TaskTooHard(UserError):
    """The whole model misses the target loss on a task, so that no circuit can hold it."""
