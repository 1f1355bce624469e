"""Query results as files: CSV, JSON, JSON Lines and Parquet, row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.cli.tables import distinct, flat, guarded, json_text, with_text
from curate.errors import CurateError
from curate.storage import parts
from curate.system.sql import readable_errors

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

KINDS = ("csv", "json", "jsonl", "parquet")
ROWS = 65_536


def kind_of(output: Path | None, asked: str | None) -> str:
    """How rows are written: as asked, else by the file's ending, else as a table.

    Raises:
        CurateError: a file that can't be a table, or Parquet without a file.
    """
    if output is None:
        if asked == "parquet":
            raise CurateError("Parquet needs a file: add --output FILE.parquet")
        return asked or "table"
    kind = asked or output.suffix.removeprefix(".")
    if kind not in KINDS:
        raise CurateError(
            f"{output}: as what? end it in .csv, .json, .jsonl or .parquet, or give --format"
        )
    return kind


def save(
    result: duckdb.DuckDBPyRelation,
    output: Path,
    kind: str,
    *,
    force: bool,
    spreadsheet: bool = False,
) -> int:
    """Write a query's rows to a file, whole or not at all; gives back how many they are.

    `spreadsheet`: see `curate.cli.tables.guarded`.

    Rows are fetched as they are written, so that memory doesn't grow with them.

    Raises:
        CurateError: the file exists (without `force`) or is no plain one, can't be written, or the
            query is wrong.
    """
    parts.refuse_special(output)
    if output.exists() and not force:
        raise CurateError(f"{output}: exists; give --force to replace it, or another name")
    import pyarrow as pa

    with readable_errors(), parts.atomic(output) as temporary:
        try:
            return _fill(temporary, result, kind, spreadsheet)
        except (OverflowError, ValueError, pa.ArrowException):
            return _fill(temporary, with_text(result), kind, spreadsheet)


def _fill(path: Path, result: duckdb.DuckDBPyRelation, kind: str, spreadsheet: bool) -> int:
    """Write all rows; gives back how many they are."""
    count = 0

    def counted(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in reader:
            count += batch.num_rows
            yield batch

    write = partial(_csv, spreadsheet=spreadsheet) if kind == "csv" else _WRITERS[kind]
    with result.to_arrow_reader(ROWS) as reader:
        write(path, reader.schema, counted(reader))
    return count


def _parquet(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _csv(
    path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch], *, spreadsheet: bool
) -> None:
    import pyarrow as pa
    import pyarrow.csv

    def cells(table: pa.Table) -> pa.Table:
        return guarded(flat(table)) if spreadsheet else flat(table)

    with pyarrow.csv.CSVWriter(path, cells(schema.empty_table()).schema) as writer:
        for batch in batches:
            writer.write_table(cells(pa.Table.from_batches([batch])))


def _jsonl(path: Path, _: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in _rows(batches):
            file.write(json_text(row, indent=None) + "\n")


def _json(path: Path, _: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        mark = "[\n"
        for row in _rows(batches):
            file.write(mark + json_text(row, indent=None))
            mark = ",\n"
        file.write("\n]\n" if mark == ",\n" else "[]\n")


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.rename_columns(distinct(batch.schema.names)).to_pylist()


_WRITERS = {"json": _json, "jsonl": _jsonl, "parquet": _parquet}
