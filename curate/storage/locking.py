"""Who may write to a corpus folder: one process at a time."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from curate.errors import CurateError
from curate.storage import manifest, parts

PATIENCE = 2.0
"""Seconds to wait for another holder; `status` needs less to rewrite corpus.duckdb."""
WRITER = ".writer"
"""Says who holds the lock, for the message to others; the lock itself is the system's."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(
    path: Path, patience: float = PATIENCE, *, command: str = "score", record: str = manifest.NAME
) -> Iterator[None]:
    """Make a folder that a command fills where it is missing, and hold its lock while inside.

    `record`: the file that says what a folder of this kind holds.

    Raises:
        CurateError: the folder is something else, can't be written or locked, or another process
            holds the lock for `patience` seconds more.
    """
    _check_folder(path, record)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Its other kind of lock is a file, which stays when the process that wrote it is killed.
        lock = FileLock(path / ".lock", timeout=patience, fallback_to_soft=False).acquire()
    except Timeout:
        raise CurateError(
            f"{path}: another `curate {command}`{_holder(path)} is writing to this folder; wait "
            "until it has ended"
        ) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise CurateError(
                f"{path}: this disk has no locks (flock): put the folder on another disk"
            ) from None
        raise CurateError(f"{path}: can't be written ({error.strerror or error})") from None
    with lock:
        said = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%F %T')}"
        parts.write_text(path / WRITER, said)
        try:
            yield
        finally:
            (path / WRITER).unlink(missing_ok=True)


def _holder(path: Path) -> str:
    """Who writes, as far as it could say."""
    try:
        return f" ({(path / WRITER).read_text('utf-8')})"
    except (OSError, UnicodeDecodeError):
        return ""


def _check_folder(path: Path, record: str) -> None:
    if path.exists() and not path.is_dir():
        option = "--corpus" if record == manifest.NAME else "--output"
        raise CurateError(f"{path}: is a file; {option} names a folder")
    for character in {"?", "\\"} & set(os.path.realpath(path)):
        raise CurateError(
            f"{path}: DuckDB can't write where a name has a {character}; choose another folder"
        )
    # A run killed before its first save leaves only its lock and temporary files.
    if path.is_dir() and not (path / record).exists() and any(path.glob("[!.]*")):
        what = "not a corpus" if record == manifest.NAME else "no answers are in it"
        raise CurateError(
            f"{path}: is not empty and {what} ({record} is missing); choose a new folder"
        )
