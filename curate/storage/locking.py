"""The lock of a corpus folder: one process writes at a time."""

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
"""Names the lock's holder, for messages; the lock itself is the operating system's."""
PULLING = ".pulling"
"""A folder of what `curate pull` has brought so far, until all is here."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(
    path: Path, patience: float = PATIENCE, *, command: str = "score", record: str = manifest.NAME
) -> Iterator[None]:
    """Create a folder if it is missing, and hold its lock.

    `record`: the file that identifies a folder of this kind.

    Raises:
        CurateError: the folder is something else, can't be written to or locked, or another process
            still holds the lock after `patience` seconds.
    """
    _check_folder(path, record, pulls=command == "pull")
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Its other kind of lock is a file, which stays when the process that wrote it is killed.
        lock = FileLock(path / ".lock", timeout=patience, fallback_to_soft=False).acquire()
    except Timeout:
        raise CurateError(
            f"{path}: another `curate {command}`{_holder(path)} is writing to this folder. Wait "
            "until it ends."
        ) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise CurateError(
                f"{path}: this disk doesn't support locks (flock). Use a folder on another disk."
            ) from None
        raise CurateError(f"{path}: can't be written ({error.strerror or error})") from None
    with lock:
        holder = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%F %T')}"
        parts.write_text(path / WRITER, holder)
        try:
            yield
        finally:
            (path / WRITER).unlink(missing_ok=True)


def _holder(path: Path) -> str:
    try:
        return f" ({(path / WRITER).read_text('utf-8')})"
    except (OSError, UnicodeDecodeError):
        return ""


def _check_folder(path: Path, record: str, pulls: bool) -> None:
    if path.exists() and not path.is_dir():
        option = "--corpus" if record == manifest.NAME else "--output"
        raise CurateError(f"{path}: a file. Give {option} a folder.")
    for character in {"?", "\\"} & set(os.path.realpath(path)):
        raise CurateError(
            f"{path}: DuckDB can't write to a path with a {character}. Choose another folder."
        )
    if pulls and (path / PULLING).is_dir():
        return  # killed while parts took their places
    # A run killed before its first save leaves only its lock and temporary files.
    if path.is_dir() and not (path / record).exists() and any(path.glob("[!.]*")):
        what = "not a corpus" if record == manifest.NAME else "no answers are in it"
        raise CurateError(
            f"{path}: not empty, and {what} ({record} is missing). Choose a new folder."
        )
