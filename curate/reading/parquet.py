"""One Parquet file -> its rows, however much its pages repeat: a few decoded at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.reading.files import CHUNK, NOT_UTF8, ROW_BYTES, TOO_LONG, Raw

ROWS, BYTES = 256, 64 << 20
"""Decoded by Arrow at a time; made Python's at a time."""


def parquet_rows(path: Path, packed: BinaryIO | None) -> Iterator[Raw]:
    """Yield the rows of a Parquet file; a packed one is unpacked to a temporary file first.

    Raises:
        OSError, pa.ArrowException: the file is corrupt.
    """
    with tempfile.NamedTemporaryFile(suffix=".parquet") as unpacked:
        if packed is not None:  # Parquet is read from its end, which a stream doesn't offer
            shutil.copyfileobj(packed, unpacked, CHUNK)
            unpacked.flush()
        # Arrow gets a path: with a Python file its threads can hang at exit (apache/arrow 50482).
        name = path if packed is None else unpacked.name
        with pq.ParquetFile(name) as footer:
            metadata, plain = footer.metadata, footer.schema_arrow
        texts = _repeated(metadata)
        number = 0
        # With pre_buffer, the default, Arrow keeps the pages of every row group it has read.
        with pq.ParquetFile(
            name, metadata=metadata, pre_buffer=False, read_dictionary=texts
        ) as table:
            for batch in table.iter_batches(batch_size=_rows_at_once(metadata)):
                for row in _rows(batch, plain):
                    number += 1
                    yield number, row


def _repeated(metadata: pq.FileMetaData) -> list[str]:
    """The columns of text that are kept as their dictionary and numbers of its entries.

    A page of some bytes can say a million times "entry 0", and that entry be a megabyte.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(metadata.num_columns)]
    texts = (c for c in chunks if c.physical_type == "BYTE_ARRAY" and c.has_dictionary_page)
    return list(dict.fromkeys(chunk.path_in_schema for chunk in texts))


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """How many rows Arrow may decode at a time, by what its row groups say of their size."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    heaviest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(ROWS, int(BYTES / max(heaviest, 1))))


def _rows(batch: pa.RecordBatch, plain: pa.Schema) -> Iterator[dict[str, Any] | str]:
    """Make rows of a batch, in slices that are small with their texts in place, as in `plain`."""
    size = sum(map(_bytes, batch.columns))
    if size > BYTES and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _rows(batch.slice(0, half), plain)
        yield from _rows(batch.slice(half), plain)
    elif size > ROW_BYTES:
        yield TOO_LONG
    else:
        yield from _python(batch.cast(plain))


def _bytes(array: pa.Array) -> int:
    """How many bytes an array has with the entries of its dictionaries in their places."""
    if pa.types.is_dictionary(array.type):
        if pa.types.is_primitive(array.type.value_type):
            return 8 * len(array)
        lengths = pc.binary_length(array.dictionary)
        return 8 * len(array) + int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(map(_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        inside = (array.keys, array.items)
        return 8 * len(array) + sum(_bytes(one.slice(start, stop - start)) for one in inside)
    if pa.types.is_nested(array.type):  # a list
        return 8 * len(array) + _bytes(array.flatten())
    return int(array.nbytes)


def _python(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    try:
        found: list[dict[str, Any] | str] = batch.to_pylist()
    except (ArithmeticError, LookupError, TypeError, ValueError, ImportError) as error:
        if batch.num_rows == 1:  # such as a date beyond Python's, or a zone that no one knows
            utf8 = isinstance(error, UnicodeDecodeError)
            why = " ".join(str(error).split())[:120]
            return [NOT_UTF8 if utf8 else f"a value that Python can't hold ({why})"]
        slices = (batch.slice(i, 1) for i in range(batch.num_rows))
        found = [row for one in slices for row in _python(one)]
    return found
