"""Rows -> JSON Lines or Parquet, one schema in every row, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

Rows = Iterable[dict[str, Any]]
BATCH_ROWS = 4096


def write_jsonl(rows: Rows, schema: pa.Schema, path: Path) -> None:
    """One JSON object per line, with the keys in the schema's order."""
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def write_parquet(rows: Rows, schema: pa.Schema, path: Path) -> None:
    """The same rows as columns, in row groups of `BATCH_ROWS`."""
    left = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(left, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


WRITERS: dict[str, Callable[[Rows, pa.Schema, Path], None]] = {
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
