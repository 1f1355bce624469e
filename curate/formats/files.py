"""Rows -> JSON Lines or Parquet, streaming, with one schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.chat.tokens import first_line
from curate.errors import CurateError

Rows = Iterable[dict[str, Any]]
BATCH_ROWS = 4096


def write_jsonl(rows: Rows, schema: pa.Schema, path: Path) -> None:
    """One JSON object per line, with the keys in the schema's order."""
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def write_parquet(rows: Rows, schema: pa.Schema, path: Path) -> None:
    """The same rows as columns, in row groups of `BATCH_ROWS`.

    Raises:
        CurateError: a column has values that its type can't represent.
    """
    left = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(left, BATCH_ROWS)):
            columns = [_column(batch, field) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _column(rows: list[dict[str, Any]], field: pa.Field) -> pa.Array:
    try:
        return pa.array([row.get(field.name) for row in rows], field.type)
    except pa.ArrowException as error:
        raise CurateError(
            f"Parquet can't keep the column {field.name!r} ({first_line(error)}): write a .jsonl "
            "file instead"
        ) from None


WRITERS: dict[str, Callable[[Rows, pa.Schema, Path], None]] = {
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
