"""Names of files that are not finished: `.tmp-NAME` will be NAME, `.old-NAME` was NAME.

A killed process leaves them. Whoever writes the same NAME next removes them first, and the writer
of a corpus, which holds its lock, removes those of parts (`sweep`).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp-"


def temporary(path: Path) -> Path:
    """Where what will be `path` is written."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def aside(path: Path) -> Path:
    """Where the folder is put whose place a new one takes."""
    return path.with_name(f".old-{path.name}")


def put_back(path: Path) -> None:
    """Give a folder its name again that was set aside, where none has taken it."""
    if not os.path.lexists(path):
        with suppress(FileNotFoundError):
            aside(path).rename(path)


def clear(path: Path) -> None:
    """Remove what is left of unfinished work on `path`."""
    remove(temporary(path))
    if os.path.lexists(path):
        remove(aside(path))


def sweep(root: Path) -> None:
    """Remove the unfinished parts of a corpus, or of answers. Hold its lock."""
    for folder in (".", "examples", "skipped", "scores/*"):
        for left in root.glob(f"{folder}/{TEMPORARY}part-*"):
            remove(left)


def remove(left: Path) -> None:
    """Remove a file or a folder, or nothing."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
