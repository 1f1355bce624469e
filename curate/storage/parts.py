"""Files that are there whole or not at all: atomic writes, folders of numbered Parquet parts."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError

TEMPORARY = ".tmp-"
_ASIDE = ".old-"


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
    temporary = path.with_name(f"{TEMPORARY}{_tag()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(path)
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
    """Give a temporary path for each; all are on the disk before any takes its name.

    The last path is named first. Between two renames lies no work: a kill just there leaves files
    of two runs side by side, which a manifest's hashes tell.

    Raises:
        CurateError: the disk is full or the folder can't be written, or a path is a folder. What
            was there is as it was.
    """
    for path in paths:
        if path.is_dir():
            raise CurateError(f"{path}: is a folder; move it away or choose another output")
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
    temporary = path.with_name(f"{TEMPORARY}{_tag()}-{path.name}")
    aside = path.with_name(f"{_ASIDE}{_tag()}-{path.name}")
    try:
        remove_left_behind(path)
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


def write_part(folder: Path, table: pa.Table) -> None:
    """Write `table` as the next numbered part of `folder`. One writer at a time (the lock).

    The name ends with the digest of the bytes, so that `integrity` finds damage.
    The place of a part that was taken away is filled.
    """
    taken = {number_of(part) for part in list_parts(folder)}
    number = next(number for number in count() if number not in taken)
    _write_numbered(folder, number, table)


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


def rewrite_part(part: Path, table: pa.Table) -> None:
    """Put `table` in the place of a part's rows, under the same number."""
    _write_numbered(part.parent, number_of(part), table)
    remove_part(part)


def remove_part(part: Path) -> None:
    """Remove a part for good: a power cut doesn't bring it back."""
    part.unlink()
    _sync(part.parent)


def sweep(root: Path) -> None:
    """Remove the temporary files that a killed writer left in a corpus. Hold the lock."""
    folders = (root, root / "examples", root / "skipped", *(root / "scores").glob("*"))
    for left in (left for folder in folders for left in folder.glob(f"{TEMPORARY}*")):
        ours = left.parent != root or left.name.endswith(("-curate.json", "-corpus.duckdb"))
        if ours or _is_left_behind(left):
            _remove(left)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file that then becomes `path`."""
    with atomic(path) as temporary:
        write(temporary)


def _tag() -> str:
    """This process, as a temporary file's name says it: its number, and its machine's."""
    return f"{os.getpid()}.{zlib.crc32(platform.node().encode()):08x}"


def own_folder(path: Path) -> Path:
    """Make a folder beside `path` for this process, closed to other users."""
    start, end = f"{TEMPORARY}{_tag()}-", f"-{path.name}"
    return Path(tempfile.mkdtemp(prefix=start, suffix=end, dir=path.parent))


def remove_left_behind(path: Path) -> None:
    """Remove what killed processes of this machine left of `path`."""
    name = glob.escape(path.name)
    for start in (TEMPORARY, _ASIDE):
        for left in path.parent.glob(f"{start}*-{name}"):
            if left.name.endswith(f"-{path.name}") and _is_left_behind(left):
                _remove(left)


def _is_left_behind(temporary: Path) -> bool:
    """Whether the process that its name tells was on this machine and is gone; or was this one."""
    pid, _, rest = temporary.name.removeprefix(TEMPORARY).removeprefix(_ASIDE).partition(".")
    here = _tag().partition(".")[2]
    if not pid.isdigit() or rest.partition("-")[0] != here:
        return False
    return int(pid) == os.getpid() or not _lives(int(pid))


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # there, asking would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _unwritable(path: Path, error: OSError) -> CurateError:
    return CurateError(
        f"{path}: can't be written ({error.strerror or error}); free some space or choose "
        "another folder, then run the same command again"
    )


def _write_numbered(folder: Path, number: int, table: pa.Table) -> None:
    with atomic(folder / f"part-{number:06d}.parquet", _with_digest) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _with_digest(path: Path, temporary: Path) -> Path:
    return path.with_name(f"{path.stem}-{digest_of(temporary)}{path.suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
