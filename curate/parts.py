"""Files that are there whole or not at all: atomic writes, folders of numbered Parquet parts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError

TEMPORARY = ".tmp-"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    On any error the temporary file is removed and `path` stays as it was.

    Raises:
        CurateError: the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and str(temporary) not in str(error):
            raise  # nothing to do with this path: a bug, or a file that the caller reads
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_together(*paths: Path) -> Iterator[list[Path]]:
    """Give a temporary path for each; all are on the disk before the first takes its name.

    Raises:
        CurateError: the disk is full or the folder can't be written. What was there is as it was.
    """
    with ExitStack() as stack:
        temporaries = [stack.enter_context(atomic(path)) for path in paths]
        yield temporaries
        for temporary in temporaries:
            _sync(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success it takes its place, whole.

    A folder that is there is put aside first and removed last, so that a failure leaves it.

    Raises:
        CurateError: the disk is full or the folder's parent can't be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    aside = path.with_name(f"{TEMPORARY}{os.getpid()}-old-{path.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
        _sync(path.parent)
    except OSError as error:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def write_part(folder: Path, table: pa.Table) -> Path:
    """Write `table` as the next numbered part of `folder`. One writer at a time (the lock)."""
    last = max((_number(part) for part in list_parts(folder)), default=-1)
    path = folder / f"part-{last + 1:06d}.parquet"
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def list_parts(folder: Path) -> list[Path]:
    """The finished parts of `folder`, in the order in which they were written."""
    return sorted(folder.glob("part-*.parquet"), key=_number)


def sweep(root: Path) -> None:
    """Remove the temporary files that a killed writer left under `root`. Hold the lock."""
    for left in root.rglob(f"{TEMPORARY}*"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file that then becomes `path`."""
    with atomic(path) as temporary:
        write(temporary)


def _unwritable(path: Path, error: OSError) -> CurateError:
    return CurateError(
        f"{path}: can't be written ({error.strerror or error}); free some space or choose "
        "another folder, then run the same command again"
    )


def _number(part: Path) -> int:
    digits = part.stem.removeprefix("part-")
    return int(digits) if digits.isdigit() else -1


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
