"""Names of files that are not finished: `.tmp-NAME` will be NAME, `.old-NAME` was NAME.

A killed process leaves them behind. The next write of the same NAME removes them first, and the
writer of a corpus, which holds its lock, removes those of parts (`sweep`).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp-"


def temporary(path: Path) -> Path:
    """The temporary path of a file or folder that will be `path`."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def aside(path: Path) -> Path:
    """The path to which the folder that is being replaced is moved."""
    return path.with_name(f".old-{path.name}")


def put_back(path: Path) -> None:
    """Restore a folder that was set aside, unless another has taken its name."""
    if not os.path.lexists(path):
        with suppress(FileNotFoundError):
            aside(path).rename(path)


def clear(path: Path) -> None:
    """Remove the leftovers of unfinished work on `path`."""
    remove(temporary(path))
    if os.path.lexists(path):
        remove(aside(path))


def sweep(root: Path) -> None:
    """Remove the unfinished parts of a corpus, or of answers. Hold its lock."""
    for folder in (".", "examples", "skipped", "proxy", "scores/*"):
        for left in root.glob(f"{folder}/{TEMPORARY}part-*"):
            remove(left)


def remove(left: Path) -> None:
    """Remove a file or folder, if it exists."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
