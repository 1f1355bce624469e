"""JSON files, read without a library that is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

BYTES = 64 << 20
"""Larger than any real `curate.json`."""

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
