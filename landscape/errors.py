"""Mistakes that the person at the keyboard can mend."""


class UserError(Exception):
    """A mistake that the reader of the message can mend.

    The text gives the name, the value, the limit, and what to do. The command line
    prints it without a traceback and exits with `code`.
    """

    code = 1


class Lost(UserError):
    """Another process of the run has ended, or cannot be reached."""
