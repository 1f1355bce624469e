"""A user's `--where`: one SQL condition over a source's own columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from curate.errors import CurateError
from curate.reading.files import Raw
from curate.system.sql import check_reads_only

LOCKED = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": "1",
}


_ABSENT = re.compile(r'Referenced column "(.+?)" not found')
MAX_COLUMNS = 10_000  # of all rows together: broken data may have other ones in every row
CHUNK_ROWS, CHUNK_BYTES = 1024, 64 << 20  # asked about at a time
MAX_SHOWN = 600  # characters of their names in a message


class RowFilter:
    """Keeps the rows for which a condition is true; sees nothing but the rows it is given.

    The columns are those of a source's rows so far; one that a row lacks is NULL. A column of one
    kind of scalar keeps its type, a mixed one becomes text, lists and objects become JSON text.

    Raises:
        CurateError: the condition is not one SQL expression.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._begin("")
        self._connection = duckdb.connect(":memory:", config=dict(LOCKED))
        check_condition(self._connection, where)

    def _begin(self, source: str) -> None:
        self._source = source
        self._columns: dict[str, None] = {}
        self._awaited: dict[str, str] = {}  # named by the condition, in no row yet: DuckDB's words

    def rows(self, source: str, found: Iterable[Raw]) -> Iterator[Raw]:
        """Yield a source's rows for which the condition is true, and those that can't be read.

        Raises:
            CurateError: a value doesn't fit the condition, or no row has a column that it names:
                a whole file is never left out for a column that it can't have.
        """
        self._begin(source)
        for chunk in _chunks(found):
            whole = [raw for raw in chunk if not isinstance(raw[1], str)]
            kept = {whole[at][0] for at in self([row for _, row in whole])}  # type: ignore[misc]
            yield from (raw for raw in chunk if isinstance(raw[1], str) or raw[0] in kept)
        for complaint in self._awaited.values():
            raise self._error(complaint)

    def __call__(self, rows: list[dict[str, Any]]) -> list[int]:
        """Return the indices of the rows to keep, in order.

        Raises:
            CurateError: a column is unknown, or a value doesn't fit the condition.
        """
        for row in rows:
            self._columns.update(dict.fromkeys(row))
        if len(self._columns) > MAX_COLUMNS:
            raise CurateError(
                f"--where {self.where!r}: the rows have more than {MAX_COLUMNS} different columns."
            )
        self._awaited = {n: said for n, said in self._awaited.items() if n not in self._columns}
        while True:
            try:
                return self._kept(rows)
            except duckdb.BinderException as error:
                absent = _ABSENT.search(str(error))
                if absent is None or absent[1] in [*self._columns, *self._awaited]:
                    raise self._error(first_line(error)) from None
                self._awaited[absent[1]] = first_line(error)
            except duckdb.Error as error:
                raise self._error(first_line(error)) from None

    def _kept(self, rows: list[dict[str, Any]]) -> list[int]:
        names = [name for name in [*self._columns, *self._awaited] if self._asked(name)]
        number = "_row"
        while any(number == name.casefold() for name in names):
            number += "_"
        arrays = [pa.array(range(len(rows)), pa.int64())]
        arrays += [typed([row.get(name) for row in rows]) for name in names]
        table = pa.table(arrays, [number, *names])
        kept = self._connection.from_arrow(table).filter(self.where).project(number).fetchall()
        return sorted(index for (index,) in kept)

    def _error(self, complaint: str) -> CurateError:
        columns = ", ".join(self._columns)[:MAX_SHOWN] or "none"
        hint = ""
        if "Could not convert" in complaint or "explicit cast" in complaint:
            hint = " A column of several kinds needs try_cast(COLUMN as double) or as text."
        if self._awaited:
            hint = " A source without a column can be scored by a run of its own."
        source = self._source or "the rows"
        return CurateError(
            f"--where {self.where!r}: {complaint}{hint} The columns of {source} are: {columns}."
        )

    def _asked(self, name: str) -> bool:
        """Whether the condition may name this column; `*` and COLUMNS() name them all."""
        where = self.where.casefold()
        return name.replace('"', '""').casefold() in where or "*" in where or "columns" in where


def _chunks(found: Iterable[Raw]) -> Iterator[list[Raw]]:
    """Gather rows: at most `CHUNK_ROWS` of them, or as many as hold `CHUNK_BYTES`."""
    chunk: list[Raw] = []
    size = 0
    for raw in found:
        chunk.append(raw)
        size += _size(raw[1])
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(value: Any) -> int:
    """About how many bytes a row's texts have."""
    todo, total = [value], 0
    while todo:
        one = todo.pop()
        total += 8 + (len(one) if isinstance(one, str | bytes) else 0)
        todo.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
    return total


def check_condition(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Parse a condition, which is then safe to stand in brackets, on lines of its own.

    Raises:
        CurateError: it is not one SQL expression but closes a bracket, orders, or goes on; or a
            part of it may do more than to read.
    """
    try:
        where.encode()
        duckdb.SQLExpression(where)
        check_reads_only(connection, f"select ({where}\n)")
    except CurateError as error:
        raise CurateError(f"--where {where!r}: {error}") from None
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise CurateError(f"--where {where!r}: {first_line(error)}") from None


def typed(values: list[Any]) -> pa.Array:
    """Return values as one Arrow column: typed if all are of one scalar kind, else text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values, kinds = [None if v is None else float(v) for v in values], {float}
    if not kinds or (len(kinds) == 1 and not kinds & {list, dict, tuple, bytes}):
        try:
            return pa.array(values, pa.string() if kinds <= {str} else None)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits, a lone surrogate or a type Arrow doesn't know
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """Return a value as text, JSON for all but strings; None if it is nested too deeply."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    try:
        return json_bytes(value).decode()
    except TypeError:
        return None if isinstance(value, dict | list | tuple) else str(value)


def json_bytes(value: Any) -> bytes:
    """Return canonical JSON, with keys sorted and what JSON doesn't know as text.

    Raises:
        TypeError: the value has a lone surrogate or is nested too deeply.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)


def first_line(error: Exception) -> str:
    """Return an error's text as one line, without the excerpt of the SQL under it."""
    text = str(error).split("\n\nLINE ")[0].replace("\n", " ").strip()
    return text if text.endswith((".", "!", "?")) else text + "."
