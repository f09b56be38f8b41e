"""Errors whose message is all that a user needs: a command prints it without a traceback."""


class UserError(Exception):
    """Something that the user can mend; the message says how."""


class FetchError(UserError):
    """A data set could not be had."""


class DivergedError(UserError):
    """The loss, or its gradient, is not finite any more."""


class OtherRunError(UserError):
    """The folder holds the checkpoints of another run."""
