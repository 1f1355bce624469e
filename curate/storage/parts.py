"""Files that are there whole or not at all: atomic writes, folders of numbered Parquet parts."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.storage import leftovers

PARTS = "part-*.parquet"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    On any error the temporary file is removed and `path` stays as it was.

    Raises:
        CurateError: the disk is full or the folder can't be written.
    """
    temporary = leftovers.temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        leftovers.remove(temporary)
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
    """Give a temporary path for each; all are on the disk before any is renamed, the last first.

    A kill between two renames leaves files of two runs, which a manifest's hashes tell.

    Raises:
        CurateError: the disk is full or the folder can't be written, or a path isn't a file
            (`refuse_special`). What was there is as it was.
    """
    for path in paths:
        refuse_special(path)
    with ExitStack() as stack:
        temporaries = [stack.enter_context(atomic(path)) for path in paths]
        yield temporaries
        for temporary in temporaries:
            _sync(temporary)


def refuse_address(path: Path, *, corpus: bool = False) -> None:
    """See that an output or a corpus lies on this disk: another place is a copy away.

    Raises:
        CurateError: it is an address, such as hf://... or s3://...; how to copy.
    """
    found = re.fullmatch(r"([a-z][a-z0-9]+):/+(.+)", str(path))  # a Path keeps one slash of two
    if found is None or path.exists():
        return
    kind, rest = found.groups()
    name, address = shlex.quote(path.name), shlex.quote(f"{kind}://{rest}")
    copies = {"s3": "aws s3 cp --recursive", "gs": "gcloud storage cp -r"}
    if path.suffix:  # one file
        copies = {"s3": "aws s3 cp", "gs": "gcloud storage cp"}
    copy = copies.get(kind, "rclone copyto" if path.suffix else "rclone copy")
    there, back = f"{copy} {name} {address}", f"{copy} {address} {name}"
    if kind == "hf":
        repo = "/".join(rest.removeprefix("datasets/").split("/")[:2])
        there = f"hf upload {repo} {name} --repo-type dataset"
        back = f"hf download {repo} --repo-type dataset --local-dir {name}"
    if corpus:
        raise CurateError(
            f"{address}: a corpus lies on this disk. Give --corpus {name}; to bring one here: "
            f"{back}; to keep it there: {there}"
        )
    raise CurateError(f"{address}: files are written to this disk. Give -o {name}, then: {there}")


def refuse_special(path: Path) -> None:
    """See that an output that a user named is a plain file, or not there yet.

    A rename doesn't write to a device: it takes its place.

    Raises:
        CurateError: it is a folder, a device or a pipe, would lie among them, or is no name that
            the disk takes.
    """
    refuse_address(path)
    try:
        folder, is_folder = Path(os.path.realpath(path.parent)), path.is_dir()
        is_special = path.exists() and not path.is_file()
    except OSError as error:
        raise _unwritable(path, error) from error
    if is_folder:
        raise CurateError(f"{path}: is a folder; name a file")
    if is_special or folder == Path("/dev") or folder.is_relative_to("/proc"):
        raise CurateError(
            f"{path}: isn't a regular file, and would be replaced, not written to; name a regular "
            "file (curate sql without --output writes to stdout)"
        )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success it takes its place, whole.

    A folder that is there is set aside first and removed last: a failure leaves it, and after a
    kill between the two it is put back by the next call, or by `leftovers.put_back`.

    Raises:
        CurateError: the disk is full or the folder's parent can't be written.
    """
    temporary = leftovers.temporary(path)
    try:
        leftovers.put_back(path)
        leftovers.clear(path)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        if path.exists():
            path.rename(leftovers.aside(path))
        temporary.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        leftovers.put_back(path)
        with suppress(OSError):
            leftovers.clear(path)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file that then becomes `path`."""
    with atomic(path) as temporary:
        write(temporary)


def write_part(folder: Path, table: pa.Table) -> None:
    """Write `table` as the next numbered part of `folder`, or in the place of one that is gone.

    One writer at a time (the lock). The name ends with the digest of the bytes, so that damage is
    found.
    """
    taken = {number_of(part) for part in list_parts(folder)}
    _write_numbered(folder, next(number for number in count() if number not in taken), table)


def rewrite_part(part: Path, table: pa.Table) -> Path:
    """Put `table` in the place of a part, under its number; a kill in between leaves both."""
    new = _write_numbered(part.parent, number_of(part), table)
    remove_part(part)
    return new


def remove_part(part: Path) -> None:
    """Remove a part for good: a power cut doesn't bring it back."""
    part.unlink()
    _sync(part.parent)


def list_parts(folder: Path) -> list[Path]:
    """The finished parts of `folder`, by their numbers.

    Only files: opening a pipe would wait for ever, and a link leads out of the corpus.

    Raises:
        CurateError: the folder is there and can't be read, which must not look like an empty one.
    """
    try:
        with os.scandir(folder) as inside:
            found = [Path(each) for each in inside if each.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CurateError(f"{folder}: can't be read ({error.strerror})") from None
    return sorted((path for path in found if path.match(PARTS)), key=number_of)


def number_of(part: Path) -> int:
    """A part's number; -1 for a file whose name has none."""
    digits = part.stem.removeprefix("part-").partition("-")[0]
    return int(digits) if digits.isdecimal() else -1


def digest_of(data: bytes | memoryview) -> str:
    """The first 16 hex digits of the SHA-256 of a part's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def _write_numbered(folder: Path, number: int, table: pa.Table) -> Path:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = memoryview(sink.getvalue())
    part = folder / f"part-{number:06d}-{digest_of(data)}.parquet"
    with atomic(part) as temporary:
        temporary.write_bytes(data)
    return part


def _unwritable(path: Path, error: OSError) -> CurateError:
    return CurateError(
        f"{path}: can't be written ({error.strerror or error}); free some space or choose "
        "another folder, then run the same command again"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
