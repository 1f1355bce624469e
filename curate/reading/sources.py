"""Files, folders, globs and hub datasets -> rows with their positions, streaming."""

from __future__ import annotations

import glob
import io
import lzma
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem

from curate.errors import CurateError
from curate.reading.files import (
    CHUNK,
    UNPACKED_BYTES,
    UNPACKED_TIMES,
    Raw,
    Unpacked,
    csv_rows,
    json_rows,
)
from curate.reading.hub import PREFIX, hub_rows
from curate.reading.parquet import parquet_rows
from curate.storage.manifest import NAME
from curate.system import scratch

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
_DISK = LocalFileSystem()
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeError)
_MANIFEST = ".manifest.json"
_ENDINGS = f"{' '.join(KINDS)}, each also with {' '.join(COMPRESSIONS)}"


def resolve(sources: Sequence[str]) -> list[str]:
    """Return the files and hub datasets that the arguments mean, in order, each once.

    A folder means its files with a known ending, searched to the bottom and sorted, without
    hidden ones and what curate wrote; a glob the same. Links to folders aren't followed. Paths
    stay relative if the argument is.

    Raises:
        CurateError: a file is missing or of an unknown kind, or nothing matches.
    """
    found: dict[str, None] = {}
    for source in sources:
        try:
            names = [source] if source.startswith(PREFIX) else _files(source)
            "".join(names).encode()
        except UnicodeEncodeError:
            raise CurateError(f"{source!r}: a file's name is not UTF-8. Rename it.") from None
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise CurateError(f"{source}: {why}. Check the path.") from None
        found.update(dict.fromkeys(names))
    if not found:
        raise CurateError("No source was given. Name a file, a folder, a glob or hf://DATASET.")
    return list(found)


def rows(source: str) -> Iterator[Raw]:
    """Yield the rows of one resolved source.

    The position is the line where the row begins (JSON Lines, CSV) or its index + 1. A row that
    can't be read is yielded as the reason.

    Raises:
        CurateError: the file as a whole can't be read (truncated, corrupt, UTF-16, no access).
    """
    if source.startswith(PREFIX):
        yield from hub_rows(source)
        return
    kind, compression = _kind(source)
    try:
        with _open(source, compression) as file:
            if not file.peek(1):
                return
            if kind == ".parquet":
                yield from _parquet_rows(source, file if compression else None)
                return
            _skip_bom(source, file)
            if kind in (".csv", ".tsv"):
                yield from csv_rows(source, file, "\t" if kind == ".tsv" else ",")
            else:
                yield from json_rows(source, file, lines=kind != ".json")
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        pa.ArrowException,
        UnicodeError,
    ) as error:
        text = " ".join(str(error).split())
        raise CurateError(f"{source}: can't be read ({text}). Is the file whole?") from None


def _files(source: str) -> list[str]:
    """Return the files that one argument means, sorted."""
    path = Path(source)
    if path.is_file():
        if not _kind(source)[0]:
            raise CurateError(f"{source}: unknown ending. Known are {_ENDINGS}.")
        return [str(path)]
    fixed = list(takewhile(lambda part: not glob.has_magic(part), path.parts))
    hidden = any(part.startswith(".") for part in path.parts[len(fixed) :])
    if path.is_dir():
        fixed, none = list(path.parts), "no file in this folder ends in"
        matched = _DISK.find(str(path.absolute()))
    elif glob.has_magic(source):
        none = "matches no file that ends in"
        matched = _DISK.glob(str(Path(glob.escape(str(Path.cwd()))) / path))
    else:
        raise CurateError(f"{source}: there is no such file or folder. Check the path.")
    top = Path(*fixed).absolute()
    known = [file for file in map(Path, matched) if _kind(file.name)[0] and file.is_file()]
    found = _foreign([file for file in known if hidden or not _is_hidden(file, top)], top)
    if not found:
        ours = ", but for what curate wrote (name that file by file)" if known else ""
        raise CurateError(f"{source}: {none} {_ENDINGS}{ours}.")
    return sorted(found if path.is_absolute() else map(os.path.relpath, found))


def _is_hidden(file: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(top).parts)


def _foreign(files: Iterable[Path], top: Path) -> list[str]:
    """The files that curate didn't write: corpora, exports and their manifests go.

    Without this, a corpus kept beside its sources would be read as one of them by the next run.
    Folders above `top` aren't asked.
    """

    @cache
    def is_ours(folder: Path) -> bool:
        if (folder / NAME).is_file() or _is_manifest(folder / "manifest.json"):
            return True
        return folder != top and folder != folder.parent and is_ours(folder.parent)

    return [
        str(file)
        for file in files
        if not file.name.endswith((_MANIFEST, ".left-out.csv"))
        and not Path(f"{file}{_MANIFEST}").is_file()
        and not is_ours(file.parent)
    ]


def _is_manifest(path: Path) -> bool:
    """Whether this is the manifest inside an export's folder."""
    try:
        with path.open("rb") as opened:
            return b'"curate"' in opened.read(4096)
    except OSError:
        return False


def _kind(name: str) -> tuple[str, str | None]:
    """Return a file's kind ('' if unknown) and its compression, from its endings."""
    path = Path(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    kind = Path(path.stem).suffix if compression else path.suffix
    return (kind if kind in KINDS else ""), compression


def _open(source: str, compression: str | None) -> io.BufferedReader:
    """Open a file of the disk; what it unpacks to has a limit."""
    path = Path(source).absolute()
    file = _DISK.open(str(path), "rb")
    if compression is None:
        return io.BufferedReader(file, CHUNK)
    limit = UNPACKED_BYTES + UNPACKED_TIMES * path.stat().st_size
    # fsspec's zstd ends without an error after the first of joined frames.
    stream = (
        pa.CompressedInputStream(file, "zstd")
        if compression == "zstd"
        else compr[compression](file, mode="rb")
    )
    return io.BufferedReader(Unpacked(stream, limit), CHUNK)


def _parquet_rows(source: str, packed: io.BufferedReader | None) -> Iterator[Raw]:
    """Yield the rows of a Parquet file; a packed one is unpacked first, as it is read backwards."""
    if packed is None:
        yield from parquet_rows(Path(source))
        return
    with scratch.temporary("unpacked") as folder:
        with (folder / "rows.parquet").open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, CHUNK)
        yield from parquet_rows(folder / "rows.parquet")


def _skip_bom(source: str, file: io.BufferedReader) -> None:
    head = file.peek(3)[:3]
    if head.startswith(b"\xef\xbb\xbf"):
        file.read(3)
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:2].count(0) == 1:
        raise CurateError(f"{source}: the text is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8.")
