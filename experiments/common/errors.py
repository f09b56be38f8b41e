"""The error of a command."""


class UserError(Exception):
    """An error that the user can fix; `command` prints its message without a traceback."""
