"""Files that are there whole or not at all: atomic writes, folders of numbered Parquet parts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.storage import leftovers
from curate.system import buckets

PARTS = "part-*.parquet"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is fsynced and renamed to `path`.

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
    """Yield a temporary path for each; all are on disk before they are renamed, the last first.

    A kill between two renames leaves files of two runs, which the hashes in a manifest reveal.

    Raises:
        CurateError: the disk is full or the folder can't be written, or a path isn't a file
            (`refuse_special`). Existing files stay unchanged.
    """
    for path in paths:
        refuse_special(path)
    with ExitStack() as stack:
        temporaries = [stack.enter_context(atomic(path)) for path in paths]
        yield temporaries
        for temporary in temporaries:
            _sync(temporary)


def refuse_address(path: Path, *, corpus: bool = False) -> None:
    """Require that an output or a corpus is a local path.

    Raises:
        CurateError: it is an address, such as hf://... or s3://...; the message says how to copy.
    """
    found = re.fullmatch(r"([a-z][a-z0-9]+):/+(.+)", str(path))  # a Path keeps one slash of two
    if found is None or path.exists():
        return
    kind, rest = found.groups()
    name, address = shlex.quote(path.name), shlex.quote(f"{kind}://{rest}")
    there = back = f"copy it with the tools of {kind}"
    if kind == "hf":
        repo = "/".join(rest.removeprefix("datasets/").split("/")[:2])
        there = f"hf upload {repo} {name} --repo-type dataset"
        back = f"hf download {repo} --repo-type dataset --local-dir {name}"
    if not corpus:
        raise CurateError(
            f"{address}: files are written to this disk. Give -o {name}, then: {there}"
        )
    if buckets.address_of(path):
        there, back = f"curate push {name} {address}", f"curate pull {address} {name}"
    raise CurateError(
        f"{address}: a corpus has to be on this disk. Give --corpus {name}. To copy one here: "
        f"{back}. To copy it there: {there}"
    )


def refuse_existing(path: Path, force: bool) -> None:
    """Require that a user's output can be written: see `refuse_special`.

    Raises:
        CurateError: it can't, or it exists and `force` is not set.
    """
    refuse_special(path)
    if (path.exists() or path.is_symlink()) and not force:  # whose target may not be mounted
        raise CurateError(f"{path}: already exists. Choose another, or use --force.")


def refuse_special(path: Path) -> None:
    """Require that a user's output is a regular file, or doesn't exist yet.

    A rename would replace a device instead of writing to it.

    Raises:
        CurateError: it is a folder, a device or a pipe, is in /dev or the like, or is not a valid
            file name.
    """
    refuse_address(path)
    try:
        folder, is_folder = Path(os.path.realpath(path.parent)), path.is_dir()
        is_special = path.exists() and not path.is_file()
    except OSError as error:
        raise _unwritable(path, error) from error
    if is_folder:
        raise CurateError(f"{path}: a folder. Give a file.")
    if is_special or folder == Path("/dev") or folder.is_relative_to("/proc"):
        raise CurateError(
            f"{path}: not a regular file, so it would be replaced, not written to. Give a regular "
            "file (without --output, curate sql writes to stdout)."
        )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; on success, it replaces `path`.

    An existing folder is set aside first and removed last. A failure keeps it; after a kill in
    between, the next call or `leftovers.put_back` restores it.

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


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass as JSON for people to read, whole or not at all."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, sort_keys=True)
    write_text(path, text + "\n")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file that then becomes `path`."""
    with atomic(path) as temporary:
        write(temporary)


def write_part(folder: Path, table: pa.Table) -> None:
    """Write `table` as the next numbered part of `folder`, or under the number of a removed one.

    One writer at a time (the lock). The name ends with the digest of the bytes, to detect damage.
    """
    taken = {number_of(part) for part in list_parts(folder)}
    _write_numbered(folder, next(number for number in count() if number not in taken), table)


def rewrite_part(part: Path, table: pa.Table) -> Path:
    """Replace a part with `table`, under the same number; a kill in between leaves both."""
    new = _write_numbered(part.parent, number_of(part), table)
    remove_part(part)
    return new


def remove_part(part: Path) -> None:
    """Remove a part durably: it doesn't come back after a power cut."""
    part.unlink()
    _sync(part.parent)


def move(part: Path, place: Path) -> None:
    """Give a part that is whole its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part.replace(place)
    _sync(place.parent)


def list_parts(folder: Path) -> list[Path]:
    """The finished parts of `folder`, by their numbers.

    Only regular files: opening a pipe would block, and a link may lead out of the corpus.

    Raises:
        CurateError: the folder exists but can't be read.
    """
    try:
        with os.scandir(folder) as inside:
            found = [Path(each) for each in inside if each.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CurateError(f"{folder}: can't be read ({error.strerror})") from None
    return sorted((path for path in found if path.match(PARTS)), key=number_of)


def folders_of(corpus: Path) -> list[Path]:
    """The folders of a corpus that hold parts, examples first."""
    scores = sorted((corpus / "scores").glob("*"))
    return [corpus / "examples", corpus / "skipped", corpus / "proxy", *scores]


def number_of(part: Path) -> int:
    """A part's number; -1 for other file names."""
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
        f"{path}: can't be written ({error.strerror or error}). Free some space or choose "
        "another folder, then run the same command again."
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
