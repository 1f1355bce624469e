"""JSON files from untrusted sources, read without a library that is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

BYTES = 64 << 20
"""Larger than any real `curate.json`."""


def load(path: Path, most: int = BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it can't be read.
        ValueError: it isn't JSON, or holds more than `most` bytes.
    """
    with path.open("rb") as file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return orjson.loads(text)
