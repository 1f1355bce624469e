"""JSON files that anybody may have made, read without a library that is slow to import."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

import orjson

BYTES = 64 << 20
"""More than a `curate.json` ever holds."""


def load(path: Path, most: int = BYTES) -> Any:
    """The value in a JSON file. A pipe would be waited for, and a device have no end.

    Raises:
        OSError: it can't be read, or is no plain file.
        ValueError: it is no JSON, or holds more than `most` bytes.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no file")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes, more than {most:,}")
    with path.open("rb") as file:
        return orjson.loads(file.read(found.st_size))
