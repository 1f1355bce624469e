"""JSON files, read without a library that is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pydantic import ValidationError

MANIFEST = "manifest.json"


def manifest_of(path: Path) -> Path:
    """An export's manifest, where that, its folder or one of its data files is named."""
    if path.is_dir():
        return path / MANIFEST
    places = path.with_name(f"{path.name}.{MANIFEST}"), path.with_name(MANIFEST)
    return path if path.suffix == ".json" else next((p for p in places if p.is_file()), path)


def load(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it can't be read.
        ValueError: it isn't JSON.
    """
    return orjson.loads(path.read_bytes())


def first_fault(error: ValidationError) -> str:
    """Where a document is wrong, and how: the first of pydantic's errors."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
