"""One Parquet file -> its rows, a small batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.reading.files import CHUNK, NOT_UTF8, ROW_BYTES, TOO_LONG, Raw

ROWS, BYTES = 256, 64 << 20
"""The most that is decoded at a time; bytes as the footer has them."""


def parquet_rows(path: Path) -> Iterator[Raw]:
    """Yield the rows of a Parquet file.

    Raises:
        OSError, pa.ArrowException: the file is corrupt.
    """
    number = 1
    # With pre_buffer, the default, Arrow keeps the pages of every row group it has read; without
    # buffer_size it holds a whole row group's.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=CHUNK) as table:
        for group in range(table.num_row_groups if table.schema_arrow.names else 0):
            about = table.metadata.row_group(group)
            size = about.total_byte_size / max(1, about.num_rows)
            at_once = int(min(max(1, BYTES / max(1, size)), ROWS))
            for batch in table.iter_batches(at_once, row_groups=[group]):
                for row in _rows(batch):
                    yield number, row
                    number += 1


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """Make rows of a batch; a row that can't be made is its reason."""
    if batch.num_rows == 1 and batch.nbytes > ROW_BYTES:
        return [TOO_LONG]
    why: str | None = None
    if batch.nbytes <= ROW_BYTES:
        try:
            found: list[dict[str, Any] | str] = batch.to_pylist()
            return found
        except UnicodeDecodeError:
            why = NOT_UTF8
        except (ArithmeticError, LookupError, TypeError, ValueError, ImportError) as error:
            # such as a date beyond Python's, or a zone that no one knows
            why = f"a value that Python can't hold ({' '.join(str(error).split())[:120]})"
    if why and batch.num_rows == 1:
        return [why]
    return [row for at in range(batch.num_rows) for row in _rows(batch.slice(at, 1))]
