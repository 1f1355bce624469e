"""Files that are there whole or not at all: atomic writes, folders of numbered Parquet parts."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError

TEMPORARY = ".tmp-"


@contextmanager
def atomic(
    path: Path, final: Callable[[Path, Path], Path] = lambda path, temporary: path
) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    `final` may give another name, from `path` and the file that was written. On any error the
    temporary file is removed and `path` stays as it was.

    Raises:
        CurateError: the disk is full or the folder can't be written.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        yield temporary
        _sync(temporary)
        temporary.replace(final(path, temporary))
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
        _remove_left_behind(path)
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


def write_part(folder: Path, table: pa.Table) -> None:
    """Write `table` as the next numbered part of `folder`. One writer at a time (the lock).

    The name ends with the digest of the bytes, so that damage is found: see `curate.integrity`.
    The place of a part that was taken away is filled.
    """
    taken = {number_of(part) for part in list_parts(folder)}
    number = next(number for number in count() if number not in taken)
    with atomic(folder / f"part-{number:06d}.parquet", _with_digest) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def list_parts(folder: Path) -> list[Path]:
    """The finished parts of `folder`, by their numbers."""
    return sorted(folder.glob("part-*.parquet"), key=number_of)


def number_of(part: Path) -> int:
    """A part's number; -1 for a file whose name has none."""
    digits = part.stem.removeprefix("part-").partition("-")[0]
    return int(digits) if digits.isdigit() else -1


def digest_of(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


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


def _remove_left_behind(path: Path) -> None:
    """Remove what killed processes left of `path`; a file of a living one is not touched."""
    for left in path.parent.glob(f"{TEMPORARY}*-{glob.escape(path.name)}"):
        pid = left.name.removeprefix(TEMPORARY).partition("-")[0]
        if "-old-" in left.name or not pid.isdigit() or _lives(int(pid)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # there, asking would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _unwritable(path: Path, error: OSError) -> CurateError:
    return CurateError(
        f"{path}: can't be written ({error.strerror or error}); free some space or choose "
        "another folder, then run the same command again"
    )


def _with_digest(path: Path, temporary: Path) -> Path:
    return path.with_name(f"{path.stem}-{digest_of(temporary)}{path.suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
