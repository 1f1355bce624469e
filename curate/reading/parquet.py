"""One Parquet file -> its rows, however much its pages repeat: a few decoded at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.reading.files import CHUNK, NOT_UTF8, ROW_BYTES, TOO_LONG, Raw
from curate.reading.where import first_line
from curate.system import scratch

ROWS, BYTES = 256, 64 << 20
"""Decoded by Arrow at a time; made Python's at a time."""
VALUE_BYTES = 8
"""Of a value once it is decoded, however few bytes its page takes to say it again."""


def parquet_rows(path: Path, packed: BinaryIO | None) -> Iterator[Raw]:
    """Yield the rows of a Parquet file; a packed one is unpacked to a temporary file first.

    Raises:
        OSError, pa.ArrowException: the file is corrupt.
    """
    if packed is None:
        yield from _decoded(path)
        return
    # Parquet is read from its end, which a stream doesn't offer. Arrow gets a path: with a Python
    # file its threads can hang at exit (apache/arrow 50482).
    with scratch.temporary("unpacked") as folder:
        with (folder / "rows.parquet").open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, CHUNK)
        yield from _decoded(folder / "rows.parquet")


def _decoded(path: Path) -> Iterator[Raw]:
    """Decode what is not too long for it; a row group that is leaves a skip at its first row."""
    with pq.ParquetFile(path) as footer:
        metadata, plain = footer.metadata, footer.schema_arrow
    if not plain.names:
        return
    groups, repeated = _promised(path)
    names = [column.path for column in metadata.schema]
    number = 1
    # With pre_buffer, the default, Arrow keeps the pages of every row group it has read.
    with pq.ParquetFile(
        path,
        metadata=metadata,
        pre_buffer=False,
        read_dictionary=[names[i] for i in repeated if i < len(names)],
    ) as table:
        for group, rows, size in groups:
            if size > ROW_BYTES:
                yield number, TOO_LONG if rows == 1 else f"{rows} rows, on average {TOO_LONG}"
                number += rows
                continue
            # One row group at a time: a batch of two has its texts in pieces, which Arrow can't
            # bring into lists and structs.
            at_once = max(1, min(ROWS, int(BYTES / max(1, size))))
            for batch in table.iter_batches(batch_size=at_once, row_groups=[group]):
                for row in _rows(batch, plain):
                    yield number, row
                    number += 1


_GROUPS = f"""
    select row_group_id, any_value(row_group_num_rows) as rows,
        sum(greatest(total_uncompressed_size, {VALUE_BYTES}::hugeint * num_values))::double
            / greatest(rows, 1)
    from parquet_metadata($1) group by row_group_id order by row_group_id
"""
_REPEATED = """
    select distinct column_id from parquet_metadata($1)
    where type = 'BYTE_ARRAY' and dictionary_page_offset is not null order by column_id
"""


def _promised(path: Path) -> tuple[list[tuple[int, int, float]], list[int]]:
    """What the footer says: of each row group its number, rows and bytes a row once decoded.

    And the columns of text that are kept as their dictionary and numbers of its entries: a page of
    some bytes can say a million times "entry 0", and that entry be a megabyte. DuckDB reads it, as
    Arrow's own look at a damaged column ends the process (pyarrow 26, RowGroupMetaData.column).
    """
    # The file by its number: DuckDB takes a name for a pattern.
    with path.open("rb") as file, duckdb.connect(config={"threads": 1}) as connection:
        name = [f"/dev/fd/{file.fileno()}"]
        try:
            groups = connection.execute(_GROUPS, name).fetchall()
            repeated = connection.execute(_REPEATED, name).fetchall()
        except duckdb.Error as error:
            raise OSError(first_line(error)) from None
    return groups, [column for (column,) in repeated]


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
