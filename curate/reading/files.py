"""An open file -> its rows with their positions, streaming; broken rows become reasons."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain, count
from typing import Any, BinaryIO, TextIO

import orjson

from curate.errors import CurateError

Raw = tuple[int, dict[str, Any] | str]
"""A row's position (line, or index + 1) and the row, or the reason why it can't be read."""

CHUNK = 1 << 20
ROW_BYTES = 128 << 20
"""The longest row of text that is read (in memory, JSON takes up to 20 times its text). A line that
never ends, or a quote that never closes, is a broken row."""
UNPACKED_BYTES, UNPACKED_TIMES = 1 << 30, 1000
"""The limit for unpacked files: a GiB plus 1000 times the size of the compressed file."""
TOO_LONG = f"longer than {ROW_BYTES >> 20} MiB"
NOT_UTF8 = "not UTF-8 text"
# A whole string, or one character that matters; a lone quote is a string cut off by the chunk.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_QUOTE, _COMMA = b'",'
_ARRAY = re.compile(rb"\[\s*(?:\{|$)")
_POINTER = b"version https://git-lfs"
_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
_ESCAPED = re.compile("[\udc80-\udcff]")


def check_pointer(source: str, file: io.BufferedReader) -> None:
    """Reject the pointer that git leaves in a file's place until git-lfs downloads it.

    Raises:
        CurateError: the file is such a pointer.
    """
    if file.peek(len(_POINTER)).startswith(_POINTER):
        raise CurateError(f"{source}: a git-lfs pointer instead of the file. Run: git lfs pull")


def json_rows(source: str, file: io.BufferedReader, *, lines: bool) -> Iterator[Raw]:
    """Yield the rows of JSON Lines, or of a JSON array if the text starts like one of objects.

    `lines`: the text should be JSON Lines, so an odd first line is just a broken row.

    Raises:
        CurateError: the array is cut off, or it is one object over many lines.
    """
    head = file.peek(1).lstrip()
    if _ARRAY.match(head) if lines else head[:1] == b"[":
        elements = _elements(source, file)
        yield from ((number, _object(text)) for number, text in enumerate(elements, start=1))
    elif not lines and head[:1] == b"{" and head.split(b"\n", 1)[0].strip() == b"{":
        raise CurateError(f"{source}: one JSON object. Give an array of rows, or one row a line.")
    else:
        for number, line in enumerate(_lines(file), start=1):
            if len(line) > ROW_BYTES:
                yield number, TOO_LONG
            elif line.strip():
                yield number, _object(line)


def _lines(file: io.BufferedReader) -> Iterator[bytes]:
    """Yield lines; of a line beyond the row limit, only a beginning that is too long, too."""
    while line := file.readline(ROW_BYTES + 1):
        rest = line if len(line) > ROW_BYTES else b""
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(CHUNK)
        yield line


def csv_rows(source: str, file: BinaryIO, delimiter: str) -> Iterator[Raw]:
    """Yield the rows of a CSV file with a header line, by the line on which each begins.

    As spreadsheets write them, a first line `sep=;` may name the delimiter, trailing columns may be
    empty and unnamed, and names may have blanks around them.

    Raises:
        CurateError: the header is broken, or a line is too long.
    """
    csv.field_size_limit(ROW_BYTES)
    # Bytes that are not UTF-8 become lone surrogates, so that they break only their own row.
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    lines = _csv_lines(source, text)
    try:
        first = next(lines, "")
        named = _SEPARATOR.fullmatch(first)
        if named:
            delimiter, first = named[1], next(lines, "")
        reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise CurateError(f"{source}:1: the header is not valid CSV ({error}).") from None
    while header and not header[-1]:
        header.pop()
    if len(set(header)) < len(header) or _ESCAPED.search("".join(header)):
        raise CurateError(f"{source}:1: the header names a column twice, or is {NOT_UTF8}.")
    above = int(bool(named))  # lines that the reader doesn't count
    while True:
        line = reader.line_num + above + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"not valid CSV ({error}, lines {line} to {reader.line_num + above})"
            continue
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) == len(header):
            bad = any(not cell.isascii() and _ESCAPED.search(cell) for cell in cells)
            yield line, NOT_UTF8 if bad else dict(zip(header, cells, strict=True))
        elif cells:
            yield line, f"{len(cells)} cells, but the header has {len(header)}"


def _csv_lines(source: str, text: TextIO) -> Iterator[str]:
    for number in count(1):
        if not (line := text.readline(ROW_BYTES + 1)):
            return
        if len(line) > ROW_BYTES:
            raise CurateError(f"{source}:{number}: a line is {TOO_LONG}. Is it a CSV file?")
        yield line


class Unpacked(io.RawIOBase):
    """A decompressed stream that fails if it grows far beyond the size of its file."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; an OSError beyond the limit."""
        count: int = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError(f"it unpacks to more than {self._limit:,} bytes, like a zip bomb")
        return count

    def close(self) -> None:
        """Close the file too."""
        self._stream.close()
        super().close()


def _object(text: bytes) -> dict[str, Any] | str:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            return NOT_UTF8
        return f"not valid JSON ({error.msg}, character {error.pos + 1})"
    return value if isinstance(value, dict) else "not a JSON object"


def _elements(source: str, file: BinaryIO) -> Iterator[bytes]:
    """Cut a JSON array into its elements, without parsing them.

    A streaming parser would stop at the first broken row. Cut apart, each row is parsed or rejected
    on its own.
    """
    buffer, start, scan, depth, count, size = b"", 0, 0, 0, 0, CHUNK
    while chunk := file.read(size):
        buffer, scan, start = buffer[start:] + chunk, scan - start, 0
        for token in _TOKEN.finditer(buffer, scan):
            at, scan = token.span()
            mark = buffer[at]
            if mark == _QUOTE:
                if scan - at == 1:
                    scan = at
                    break
            elif mark in b"[{":
                depth += 1
                start = scan if depth == 1 else start
            elif mark in b"]}":
                depth -= 1
            if depth == 0 or (depth == 1 and mark == _COMMA):
                element, start = buffer[start:at], scan
                count += 1
                if depth or count > 1 or element.strip():
                    yield element
            if depth == 0:
                if (buffer[scan:] + file.read(CHUNK)).strip():
                    raise CurateError(f"{source}: there is text after the end of the JSON array.")
                return
        if len(buffer) - start > ROW_BYTES:
            raise CurateError(f"{source}:{count + 1}: this row of the JSON array is {TOO_LONG}.")
        size = max(CHUNK, len(buffer) - start)  # doubled for one huge row: linear, not quadratic
    raise CurateError(f"{source}: the JSON array is not closed after {count} rows. Is it complete?")
