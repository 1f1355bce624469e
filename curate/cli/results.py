"""Query results, printed or saved by DuckDB's own writers: CSV, JSON, JSON Lines and Parquet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curate.cli.tables import clean, escape, table
from curate.errors import CurateError
from curate.storage import parts
from curate.system import scratch
from curate.system.sql import readable_errors

if TYPE_CHECKING:
    import duckdb

Kind = Literal["table", "csv", "json", "jsonl", "parquet"]

_COPY = {
    "csv": "format csv, header",
    "json": "format json, array true",
    "jsonl": "format json",
    "parquet": "format parquet, compression zstd",
}
_NUMBERS = {
    *("boolean", "float", "double", "decimal", "integer", "uinteger"),
    *(f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")),
}
_NESTED = {"list", "array", "struct", "map", "union"}


def kind_of(output: Path | None, asked: Kind | None) -> str:
    """The output format: as given, else by the file's extension, else a table."""
    if output is None:
        if asked == "parquet":
            raise CurateError("Parquet needs a file. Add --output FILE.parquet.")
        return asked or "table"
    kind = asked or output.suffix.removeprefix(".")
    if kind not in _COPY:
        raise CurateError(
            f"{output}: unknown format. End it in .csv, .json, .jsonl or .parquet, or give "
            "--format."
        )
    return kind


def show(result: duckdb.DuckDBPyRelation, kind: str) -> None:
    """Print a query's rows."""
    if kind == "table":
        with readable_errors():
            rows = _shaped(result, kind).fetchall()
        table(result.columns, rows)
        return
    shown = escape if kind != "csv" else clean if sys.stdout.isatty() else str
    with scratch.temporary("sql") as folder:
        _copy(result, folder / "rows", kind)
        with (folder / "rows").open(encoding="utf-8", newline="") as lines:
            for line in lines:
                print(shown(line), end="")


def save(result: duckdb.DuckDBPyRelation, output: Path, kind: str, *, force: bool) -> int:
    """Write a query's rows to a file, whole or not at all; return their number."""
    parts.refuse_existing(output, force)
    with parts.atomic(output) as temporary:
        return _copy(result, temporary, kind)


def _copy(result: duckdb.DuckDBPyRelation, path: Path, kind: str) -> int:
    """Stream the rows through a second connection, since the corpus's own can't write."""
    import duckdb

    with readable_errors(), duckdb.connect() as connection:
        connection.from_arrow(_shaped(result, kind).to_arrow_reader()).create_view("answer")
        copy = f"copy (from answer) to $path ({_COPY[kind]})"
        return int(connection.execute(copy, {"path": str(path)}).fetchall()[0][0])


def _shaped(result: duckdb.DuckDBPyRelation, kind: str) -> duckdb.DuckDBPyRelation:
    """The same rows, with text or null for values that the format can't represent."""
    cells = []
    for at, (name, column_type) in enumerate(zip(result.columns, result.types, strict=True), 1):
        cell, of = f"#{at}", column_type.id
        if of == "uhugeint" or (kind == "table" and of not in _NUMBERS):
            cell = f"{cell}::varchar"  # Arrow has no unsigned integer of 128 bits
        elif kind == "csv" and of in _NESTED:
            cell = f"to_json({cell})::varchar"
        elif kind in ("json", "jsonl") and of in ("float", "double"):
            cell = f"case when isfinite({cell}) then {cell} end"  # JSON has no NaN
        quoted = name.replace('"', '""')
        cells.append(f'{cell} as "{quoted}"')
    return result.project(", ".join(cells))
