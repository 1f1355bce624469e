"""A folder for what lives no longer than this process: spills, unpacked files, merged models."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from curate.errors import CurateError

_START = ".curate-scratch-"


@contextmanager
def temporary(name: str) -> Iterator[Path]:
    """Make a folder that goes at the end; `fresh` says where, and what is raised."""
    made = fresh(name)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def fresh(name: str) -> Path:
    """Make a folder that goes with this process, however it ends: the next one sees to it.

    It lies below the system's temporary one (`$TMPDIR`) and is closed to other users.

    Raises `CurateError` where none can be written.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_own()))
    except OSError as error:
        raise CurateError(
            f"no temporary folder can be written ({error.strerror or error}): free some space, or "
            "name another in the environment variable TMPDIR"
        ) from None


@cache
def _own() -> Path:
    """This process's folder. What nobody holds any more is removed first."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_START}*"):
        with suppress(OSError):  # it is another user's, or held
            held = _hold(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_START, dir=root))
        try:
            _hold(made)
        except BlockingIOError:  # somebody clears it already
            continue
        except OSError:  # a disk without locks: then nobody else can hold it either
            pass
        if made.exists():  # else somebody has cleared it
            atexit.register(shutil.rmtree, made, ignore_errors=True)
            return made


def _hold(folder: Path) -> int:
    """Lock a folder until the descriptor is closed, or this process ends in whatever way.

    The system keeps such a lock, so that it tells the living from the dead in any container.

    Raises `OSError` if another process holds it.
    """
    if sys.platform == "win32":  # pragma: no cover - there nothing is cleared
        raise OSError("folders have no locks")
    import fcntl

    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held
