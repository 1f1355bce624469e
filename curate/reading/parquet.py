"""One Parquet or Arrow file -> its rows, a small batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.reading.files import CHUNK, NOT_UTF8, ROW_BYTES, TOO_LONG, Raw

ROWS, BYTES = 256, 64 << 20
"""The most to decode at a time, in bytes by the file's footer."""

Decoder = Callable[[Any], Any]


def parquet_rows(path: Path) -> Iterator[Raw]:
    """Yield the rows of a Parquet file, with columns of JSON decoded.

    Raises:
        OSError, pa.ArrowException: the file is corrupt.
    """
    # With pre_buffer, the default, Arrow keeps the pages of every row group it has read; without
    # buffer_size it holds a whole row group's.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK) as table:
        yield from _numbered(_of_groups(table), table.schema_arrow)


def arrow_rows(path: Path) -> Iterator[Raw]:
    """Yield the rows of an Arrow IPC file or stream, such as those of `Dataset.save_to_disk`.

    Raises:
        OSError, pa.ArrowException: the file is corrupt.
    """
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source) as table:
            batches = map(table.get_batch, range(table.num_record_batches)) if is_file else table
            yield from _numbered(_cut(batches), table.schema)


def _of_groups(table: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    for group in range(table.num_row_groups if table.schema_arrow.names else 0):
        about = table.metadata.row_group(group)
        at_once = _at_once(about.num_rows, about.total_byte_size)
        yield from table.iter_batches(at_once, row_groups=[group])


def _cut(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        at_once = _at_once(batch.num_rows, batch.nbytes)
        yield from (batch.slice(at, at_once) for at in range(0, batch.num_rows, at_once))


def _at_once(rows: int, size: int) -> int:
    return int(min(max(1, BYTES / max(1, size / max(1, rows))), ROWS))


def _numbered(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[Raw]:
    decoders = {field.name: _decoder(field.type) for field in schema}
    coded = {name: decode for name, decode in decoders.items() if decode}
    number = 1
    for batch in batches:
        for row in _rows(batch):
            if isinstance(row, dict):
                row.update((name, decode(row[name])) for name, decode in coded.items())
            yield number, row
            number += 1


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """The rows of a batch; for a row that can't be converted, the reason."""
    # For a view, Arrow counts all bytes of its base.
    fits = "_view" in str(batch.schema) or batch.nbytes <= ROW_BYTES
    if batch.num_rows == 1 and not fits:
        return [TOO_LONG]
    why: str | None = None
    if fits:
        try:
            found: list[dict[str, Any] | str] = batch.to_pylist()
            return found
        except UnicodeDecodeError:
            why = NOT_UTF8
        except (ArithmeticError, LookupError, TypeError, ValueError, ImportError) as error:
            # such as a date beyond Python's range, or an unknown time zone
            why = f"a value that Python can't represent ({' '.join(str(error).split())[:120]})"
    if why and batch.num_rows == 1:
        return [why]
    return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]


def _decoder(kind: pa.DataType) -> Decoder | None:
    """A decoder for a column with JSON (Arrow's own type, or the `Json` of `datasets`)."""
    if isinstance(kind, pa.JsonType):
        return _from_json
    if pa.types.is_struct(kind):
        each = {field.name: found for field in kind if (found := _decoder(field.type))}
        return (lambda value: _with(value, each)) if each else None
    if pa.types.is_map(kind):
        held = _decoder(kind.item_type)
        return held and (lambda value: value and [(key, held(one)) for key, one in value])
    within = _decoder(kind.value_type) if hasattr(kind, "value_type") else None
    if within is None or pa.types.is_dictionary(kind):
        return within
    return lambda value: value and [within(one) for one in value]


def _with(value: dict[str, Any] | None, decoders: dict[str, Decoder]) -> dict[str, Any] | None:
    return value and value | {name: decode(value[name]) for name, decode in decoders.items()}


def _from_json(text: str | None) -> Any:
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
