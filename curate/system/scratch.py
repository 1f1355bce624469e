"""Temporary folders that end with this process: spills, unpacked files, merged models."""

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
    """Make a private folder in `$TMPDIR` that is removed when this process ends.

    Raises `CurateError` if none can be created.
    """
    try:
        made = Path(tempfile.mkdtemp(prefix=f"curate-{name}-"))
    except OSError as error:
        why = error.strerror or error
        raise CurateError(
            f"can't create a temporary folder ({why}). Free some space, or set TMPDIR."
        ) from None
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
