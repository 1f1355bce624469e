"""The one error that users cause and can mend."""

from __future__ import annotations

import os
import re

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


class CurateError(Exception):
    """Something a user can put right.

    The message says what is wrong, where (a path and a line, a model, an option) and what to do.
    The command line prints it as one line and exits with 1; any other exception is a bug and
    keeps its traceback. A hub's token in it, which a hub may repeat or a user type, is hidden.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_hidden(message))


def _hidden(text: str) -> str:
    """A text without the hub's tokens: those of the environment, and what looks like one."""
    for name in _TOKENS:
        token = "".join(os.environ.get(name, "").splitlines()).strip()  # as it is sent
        if len(token) >= 8:
            text = text.replace(token, "***")
    return _HUB_TOKEN.sub("***", text)
