"""Any source -> its rows with their positions, streaming.

A source is a file, folder or glob, on this disk or on another file system that `fsspec` knows, or a
Hub dataset. All are looked up before the first is read.
"""

from __future__ import annotations

import glob
import io
import lzma
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem

from curate.errors import CurateError
from curate.reading import folders, hub, parquet, remote
from curate.reading.addresses import HubSet, Source, hint, parse
from curate.reading.files import (
    CHUNK,
    UNPACKED_BYTES,
    UNPACKED_TIMES,
    Raw,
    Unpacked,
    check_pointer,
    csv_rows,
    json_rows,
)
from curate.system import scratch

_DISK = LocalFileSystem()
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeError)


def resolve(sources: Sequence[str | Source]) -> list[Source]:
    """Look up the arguments in order, each once. Sources among them are kept as they are.

    A folder or glob stands for its data files, found recursively and sorted. Hidden files, files
    that only describe data, and files that curate wrote are left out. Symlinked folders are
    skipped. Paths stay relative if the argument is. A split of a Hub dataset is one source.

    Raises:
        CurateError: a source is missing or of an unknown kind, nothing matches, or the split is
            ambiguous.
    """
    found: dict[str, Source] = {}
    for source in sources:
        if isinstance(source, Source):
            found.setdefault(source.name, source)
            continue
        for each in _find(source):
            found.setdefault(each.name, replace(each, asked=source))
    if not found:
        raise CurateError("No source was given. Give a file, a folder, a glob or hf://OWNER/NAME.")
    return list(found.values())


def rows(source: Source) -> Iterator[Raw]:
    """Yield the rows of one source.

    The position is the line where the row begins (JSON Lines, CSV) or its index + 1, counted over
    all files of the source. For a row that can't be read, the reason is yielded.

    Raises:
        CurateError: a file can't be read (truncated, corrupt, UTF-16, no access).
    """
    before = 0
    for file in source.files:
        number = 0
        for number, row in _file_rows(file, name_of(file)):
            yield before + number, row
        before += number


def name_of(file: str) -> str:
    """The name of a source's file in messages."""
    return hub.name_of(file) if hub.is_file(file) else remote.name_of(file)


def _find(source: str) -> list[Source]:
    try:
        wanted = parse(source)
        if isinstance(wanted, HubSet):
            return hub.find(wanted)
        if "://" in wanted:
            return remote.find(wanted)
        names = _files(wanted)
        "".join(names).encode()
    except UnicodeEncodeError:
        raise CurateError(f"{source!r}: a file name is not UTF-8. Rename the file.") from None
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise CurateError(f"{source}: {why}. Check the path.") from None
    if (Path(wanted) / folders.ANSWERS).is_file():
        return [Source(source, tuple(names))]
    return [Source(name, (name,)) for name in names]


def _files(source: str) -> list[str]:
    """Return the local files that one argument stands for, sorted."""
    path = Path(source)
    if path.is_file():
        folders.check_kind(source)
        return [str(path)]
    if path.is_dir():
        if (path / "adapter_config.json").is_file() or (path / "model.safetensors").is_file():
            raise CurateError(f"{source}: a model, not data. Write --misaligned before each model.")
        top = path.absolute()
        matched = _DISK.find(str(top))
    elif glob.has_magic(source):
        top = Path(folders.top_of(source)).absolute()
        matched = _DISK.glob(str(Path(glob.escape(str(Path.cwd()))) / path))
    else:
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = get_close_matches(path.name, [each.name for each in beside], 1)
        meant = f"Did you mean {path.with_name(near[0])}?" if near else "Check the path."
        raise CurateError(f"{source}: no such file or folder. {meant}{hint(source)}")
    files = {
        file.relative_to(top).as_posix(): file for file in map(Path, matched) if file.is_file()
    }
    names = folders.foreign(source, files, _DISK, top.as_posix())
    if path.is_dir():
        names = folders.of_folder(source, names)
    else:
        names = folders.of_glob(source, source, names)
    found = [files[name] for name in names]
    return sorted(map(str, found) if path.is_absolute() else map(os.path.relpath, found))


def _file_rows(file: str, name: str) -> Iterator[Raw]:
    """Yield the rows of one file; `name` is its name in messages."""
    kind, compression = folders.kind_of(name)
    path = None if "://" in file else Path(file)
    if hub.is_file(file):
        path = hub.local_copy(file)
    try:
        with _open(path or file, compression, name) as opened:
            if not opened.peek(1):
                return
            if kind in (".parquet", ".arrow"):
                read = parquet.parquet_rows if kind == ".parquet" else parquet.arrow_rows
                if path and compression is None:
                    yield from read(path)
                else:
                    yield from _unpacked(opened, read)
                return
            _skip_bom(name, opened)
            if kind in (".csv", ".tsv"):
                yield from csv_rows(name, opened, "\t" if kind == ".tsv" else ",")
            else:
                yield from json_rows(name, opened, lines=kind != ".json")
    except _UNREADABLE as error:
        text = " ".join(str(error).split())
        raise CurateError(f"{name}: can't be read ({text}). Is the file complete?") from None


def _open(file: Path | str, compression: str | None, name: str) -> io.BufferedReader:
    """Open a file of any file system; the size that it unpacks to is limited."""
    if isinstance(file, Path):
        opened, size = _DISK.open(str(file.absolute()), "rb"), file.stat().st_size
    else:
        opened, size = remote.open_file(file)
    packed = io.BufferedReader(opened, CHUNK)
    check_pointer(name, packed)
    if compression is None:
        return packed
    limit = UNPACKED_BYTES + UNPACKED_TIMES * size
    # fsspec's zstd stops after the first of several frames, without an error.
    stream = (
        pa.CompressedInputStream(packed, "zstd")
        if compression == "zstd"
        else compr[compression](packed, mode="rb")
    )
    return io.BufferedReader(Unpacked(stream, limit), CHUNK)


def _unpacked(file: BinaryIO, read: Callable[[Path], Iterator[Raw]]) -> Iterator[Raw]:
    """Yield the rows of a file that needs random access, such as Parquet."""
    with scratch.temporary("unpacked") as folder:
        with (folder / "rows").open("wb") as copy:
            shutil.copyfileobj(file, copy, CHUNK)
        yield from read(folder / "rows")


def _skip_bom(name: str, file: io.BufferedReader) -> None:
    head = file.peek(3)[:3]
    if head.startswith(b"\xef\xbb\xbf"):
        file.read(3)
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:2].count(0) == 1:
        raise CurateError(f"{name}: the text is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8.")
