"""Folders for what lives no longer than this process: spills, unpacked files, merged models."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import CurateError


@contextmanager
def temporary(name: str) -> Iterator[Path]:
    """Make a folder that is removed at the end of the block; see `fresh`."""
    made = fresh(name)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def fresh(name: str) -> Path:
    """Make a folder below `$TMPDIR`, closed to other users, that is removed when this process ends.

    Raises `CurateError` where none can be written.
    """
    try:
        made = Path(tempfile.mkdtemp(prefix=f"curate-{name}-"))
    except OSError as error:
        why = error.strerror or error
        raise CurateError(
            f"no temporary folder can be written ({why}): free some space, or set TMPDIR"
        ) from None
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
