"""Files, folders, globs and hub datasets -> rows with their positions, streaming."""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path

import pyarrow as pa

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

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = {"": None, ".gz": "gzip", ".zst": "zstd"}
_MANIFEST = ".manifest.json"
_ENDINGS = f"{' '.join(KINDS)}, each also with .gz or .zst"


def resolve(sources: Sequence[str]) -> list[str]:
    """Return the files and hub datasets that the arguments mean, in order, each once.

    A folder means its files with a known ending, searched to the bottom and sorted, without
    hidden ones and what curate wrote; a glob the same. Paths stay relative where the argument is.

    Raises:
        CurateError: a file is missing or of an unknown kind, or nothing matches.
    """
    found: dict[str, None] = {}
    for source in sources:
        try:
            names = [source] if source.startswith(PREFIX) else _files(source)
            "".join(names).encode()
        except OSError as error:
            raise CurateError(f"{source}: {error.strerror}. Check the path.") from None
        except RecursionError:
            raise CurateError(f"{source}: its folders go too deep. Name one below.") from None
        except UnicodeEncodeError:
            raise CurateError(f"{source!r}: a file's name is not UTF-8. Rename it.") from None
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
    path = Path(source)
    kind, compression = _kind(path)
    try:
        with _open(path, compression) as file:
            if not file.peek(1):
                return
            if kind == ".parquet":
                yield from parquet_rows(path, file if compression else None)
                return
            _skip_bom(source, file)
            if kind in (".csv", ".tsv"):
                yield from csv_rows(source, file, "\t" if kind == ".tsv" else ",")
            else:
                yield from json_rows(source, file, lines=kind != ".json")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # names in Parquet, too
        text = " ".join(str(error).split())
        raise CurateError(f"{source}: can't be read ({text}). Is the file whole?") from None


def _files(source: str) -> list[str]:
    """Return the files that one argument means, sorted."""
    path = Path(source)
    if path.is_dir():
        inside = [p for p in path.rglob("*") if not _hidden(p.relative_to(path)) and p.is_file()]
        return _foreign(f"{source}: no file in this folder ends in", inside, path)
    if path.exists():
        if not _kind(path)[0]:
            raise CurateError(f"{source}: unknown ending. Known are {_ENDINGS}.")
        return [str(path)]
    if not glob.has_magic(source):
        raise CurateError(f"{source}: there is no such file or folder. Check the path.")
    matched = [p for p in _matches(source) if _kind(p)[0] and p.is_file()]
    fixed = takewhile(lambda part: not glob.has_magic(part), path.parts)
    return _foreign(f"{source}: matches no file that ends in", matched, Path(*fixed))


def _matches(pattern: str) -> Iterator[Path]:
    """What a glob means. Its `**` follows no links, which may lead back and so never end."""
    parts = Path(pattern).parts
    at = parts.index("**") if "**" in parts else len(parts)
    # Stars beside other characters are one: pathlib refuses what a shell takes.
    inner = [part if part == "**" else re.sub(r"\*{2,}", "*", part) for part in parts[at:]]
    below = "/".join([*inner, *(["*"] if parts[-1] == "**" else [])])
    all_of_it = any(part.startswith(".") for part in inner)  # what is hidden is asked for
    for found in map(Path, glob.glob(str(Path(*parts[:at])))):  # noqa: PTH207 - absolute ones too
        if below:
            inside = found.glob(below)
            yield from (p for p in inside if all_of_it or not _hidden(p.relative_to(found)))
        else:
            yield found


def _foreign(none: str, files: Iterable[Path], top: Path) -> list[str]:
    """The files of a known kind that curate didn't write: corpora, exports and manifests go.

    Without this, a corpus kept beside its sources would be read as one of them by the next run.
    Folders above `top` aren't asked whether they are one. `none` says that no file is left.
    """
    above = _whole(top).rpartition("/")[0]

    @cache
    def is_ours(folder: str) -> bool:
        if folder in (above, ""):
            return False
        here = _is_there(f"{folder}/{NAME}") or _is_manifest(f"{folder}/manifest.json")
        return here or is_ours(folder.rpartition("/")[0])

    @cache
    def is_inside(folder: Path) -> bool:
        return is_ours(_whole(folder))

    known = [file for file in files if _kind(file)[0]]
    found = {str(file) for file in known if not _is_export(file) and not is_inside(file.parent)}
    if not found:
        ours = ", but for what curate wrote (name that file by file)" if known else ""
        raise CurateError(f"{none} {_ENDINGS}{ours}.")
    return sorted(found)


def _whole(path: Path) -> str:
    return os.path.normpath(Path.cwd() / path)


def _is_export(file: Path) -> bool:
    """Whether this is an export's file, or lies beside it."""
    return file.name.endswith((_MANIFEST, ".left-out.csv")) or _is_there(f"{file}{_MANIFEST}")


def _is_there(name: str) -> bool:
    return os.path.isfile(name)  # noqa: PTH113 - quicker, and False where nobody may look


def _is_manifest(name: str) -> bool:
    """Whether this is the manifest inside an export's folder."""
    try:
        if not _is_there(name):
            return False
        with Path(name).open("rb") as opened:
            return b'"curate"' in opened.read(4096)
    except OSError:
        return False


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind(path: Path) -> tuple[str, str | None]:
    """Return a file's kind ('' if unknown) and its compression, from its endings."""
    name, packed = path.name.lower(), path.suffix.lower()
    if packed in (".gz", ".zst"):
        name = name.removesuffix(packed)
    else:
        packed = ""
    kind = Path(name).suffix
    return (kind if kind in KINDS else ""), COMPRESSIONS[packed]


def _open(path: Path, compression: str | None) -> io.BufferedReader:
    if compression is None:
        return io.BufferedReader(path.open("rb", buffering=0), CHUNK)
    limit = UNPACKED_BYTES + UNPACKED_TIMES * path.stat().st_size
    stream = pa.input_stream(str(path), compression=compression)
    return io.BufferedReader(Unpacked(stream, limit), CHUNK)


def _skip_bom(source: str, file: io.BufferedReader) -> None:
    head = file.peek(3)[:3]
    if head.startswith(b"\xef\xbb\xbf"):
        file.read(3)
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:2].count(0) == 1:
        raise CurateError(f"{source}: the text is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8.")
