"""The one error that users cause and can fix."""

from __future__ import annotations

import re

_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


class CurateError(Exception):
    """Something a user can put right.

    The message says what is wrong, where (a path and a line, a model, an option) and what to do.
    The command line prints it as one line and exits with 1; any other exception is a bug and
    keeps its traceback. A hub's token in it, which a hub may repeat or a user type, is hidden.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_HUB_TOKEN.sub("***", message))
