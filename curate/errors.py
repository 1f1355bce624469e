"""The one error that users cause and can fix."""

from __future__ import annotations

import re

_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


class CurateError(Exception):
    """An error that a user can fix.

    The message says where (a path and a line, a model, an option), what is wrong, and what to do.
    The command line prints it as one line and exits with 1; any other exception is a bug and keeps
    its traceback. Hub tokens in the message are hidden.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_HUB_TOKEN.sub("***", message))
