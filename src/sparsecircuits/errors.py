"""The one exception type for what a user can put right."""


class UserError(ValueError):
    """Bad input or a bad environment, told in one line that says what to do.

    The command line prints the message alone (exit code 1); in Python it is an ordinary ValueError.
    """
