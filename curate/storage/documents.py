"""JSON files that anybody may have made, read without a library that is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

BYTES = 64 << 20
"""More than a `curate.json` ever holds."""


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
