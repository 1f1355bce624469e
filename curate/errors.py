"""The one error that users cause and can mend."""

from __future__ import annotations


class CurateError(Exception):
    """Something a user can put right.

    The message says what is wrong, where (a path and a line, a model, an option) and what to do.
    The command line prints it as one line and exits with 1; any other exception is a bug and
    keeps its traceback.
    """
