"""A user's `--where`: one SQL condition over a source's own columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from more_itertools import constrained_batches

from curate.errors import CurateError
from curate.reading.files import Raw
from curate.system.sql import MAX_SHOWN, check_reads_only, short_type

LOCKED = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": "1",
}
_NUMBER = "_number_of_the_row"  # beside the source's own columns
_ABSENT = re.compile(r'Referenced (?:column|table) "(.+?)" not found')
_NO_KEY = re.compile(r'Could not find key "(.+?)" in struct')
CHUNK_ROWS, CHUNK_BYTES = 1024, 64 << 20  # checked at a time
MAX_DEPTH, MAX_KEYS = 16, 256  # of objects as columns; beyond they are JSON

Texts = Callable[[dict[str, Any]], Mapping[str, str | None] | None]


class RowFilter:
    """Keeps the rows for which a condition is true; it can access only these rows.

    The columns are those of a source's rows so far; a column, or key of an object, that a row lacks
    is NULL. Their types are those of `Columns`. `texts` returns a row's `prompt` and `answer`,
    which take precedence over columns of these names; a row of an unknown layout passes and is
    reported later.

    Raises:
        CurateError: the condition is not one SQL expression.
    """

    def __init__(self, where: str, texts: Texts | None = None) -> None:
        self.where = where
        self._always = texts is not None
        self._texts = texts if re.search(r"\b(prompt|answer)\b", where, re.IGNORECASE) else None
        self._begin("")
        self._connection = duckdb.connect(":memory:", config=dict(LOCKED))
        check_condition(self._connection, where)

    def _begin(self, source: str) -> None:
        self._source = source
        self._names = dict.fromkeys(("prompt", "answer") if self._texts else ())  # of the columns
        self._columns = Columns()
        self._awaited: dict[str, str] = {}  # named by the condition, in no row yet: DuckDB's words
        self._rows: list[dict[str, Any]] = []  # the last ones

    def rows(self, source: str, found: Iterable[Raw]) -> Iterator[Raw]:
        """Yield a source's rows for which the condition is true, and those that can't be read.

        Raises:
            CurateError: a value doesn't fit the condition, or no row has a column or key that it
                names, which would silently exclude the whole file.
        """
        self._begin(source)
        for chunk in constrained_batches(found, CHUNK_BYTES, CHUNK_ROWS, _size, strict=False):
            whole = [(n, seen) for n, row in chunk if (seen := self._seen(row)) is not None]
            kept = {whole[at][0] for at in self._kept([row for _, row in whole])}
            dropped = {number for number, _ in whole} - kept
            yield from (raw for raw in chunk if raw[0] not in dropped)
        for complaint in filter(None, (*self._awaited.values(), *self._columns.awaited.values())):
            raise self._error(complaint)

    def _seen(self, row: dict[str, Any] | str) -> dict[str, Any] | None:
        """A row as the condition sees it; None for a row that can't be read."""
        if isinstance(row, str):
            return None
        if self._texts is None:
            return row
        texts = self._texts(row)
        if texts is None:
            return None
        own = {name: each for name, each in row.items() if name.casefold() not in texts}
        return own | dict(texts)

    def _kept(self, rows: list[dict[str, Any]]) -> list[int]:
        """The indices of the rows to keep, in order."""
        self._rows = rows or self._rows
        for row in rows:
            self._names.update(dict.fromkeys(row))
        self._awaited = {n: said for n, said in self._awaited.items() if n not in self._names}
        while True:
            try:
                return self._ask(rows)
            except duckdb.BinderException as error:
                if not self._awaits(error):
                    raise self._error(first_line(error)) from None
            except duckdb.Error as error:
                raise self._error(first_line(error)) from None

    def _awaits(self, error: duckdb.BinderException) -> bool:
        """Treat a name that no row has had so far as NULL; return False if it already was."""
        text, said = str(error), first_line(error)
        if absent := _ABSENT.search(text):
            name = absent[1] if "column" in absent[0] else absent[1].partition(".")[0]
            new = name not in self._names and name not in self._awaited
            self._awaited.setdefault(name, said)
        elif absent := _NO_KEY.search(text):
            new = absent[1] not in self._columns.awaited
            self._columns.awaited.setdefault(absent[1], said)
        else:
            new, self._columns.untyped = not self._columns.untyped, True
        return new

    def _ask(self, rows: list[dict[str, Any]]) -> list[int]:
        # The condition may name a column; `*` and COLUMNS() name them all.
        where = self.where.casefold()
        all_names = "*" in where or "columns" in where
        names = [
            name
            for name in [*self._names, *self._awaited]
            if all_names or name.replace('"', '""').casefold() in where
        ]
        arrays = [pa.array(range(len(rows)), pa.int64())]
        arrays += [self._columns.array([row.get(name) for row in rows], (name,)) for name in names]
        table = pa.table(arrays, [_NUMBER, *names])
        kept = self._connection.from_arrow(table).filter(self.where).project(_NUMBER).fetchall()
        return sorted(index for (index,) in kept)

    def _error(self, complaint: str) -> CurateError:
        columns = ", ".join(self._described())[:MAX_SHOWN] or "none"
        complaint = complaint.partition(" Candidate ")[0].rstrip(",")
        hint = ""
        if "Could not convert" in complaint or "explicit cast" in complaint:
            hint = " For a column of several types, use try_cast(COLUMN as double) or as text."
        elif "No function matches" in complaint:
            hint = " Lists and objects have their own functions; COLUMN::text converts one to text."
        elif "JSON" in complaint:
            hint = " A column of several types is JSON: compare its text, COLUMN->>'$'."
        if self._awaited:
            hint = (
                " Put text in single quotes. If only some sources have this column, score them "
                "in a separate command."
            )
        source = self._source or "the rows"
        return CurateError(
            f"--where {self.where!r}: {complaint}{hint} The columns of {source} are: {columns}."
        )

    def _described(self) -> Iterator[str]:
        """The columns with their types in the last rows; always with `prompt` and `answer`."""
        for name in dict.fromkeys([*self._names, *(("prompt", "answer") if self._always else ())]):
            values = [row.get(name) for row in self._rows[:100]]
            column = pa.table([Columns().array(values, (name,))], ["of"])
            kind = (
                "varchar"
                if name not in self._names
                else short_type(self._connection.from_arrow(column).types[0])
            )
            yield f"{name} {kind}"


def _size(raw: Raw) -> int:
    try:
        return len(orjson.dumps(raw, default=repr))
    except TypeError:  # nested too deeply to measure: gets a chunk of its own
        return CHUNK_BYTES


def check_condition(
    connection: duckdb.DuckDBPyConnection, where: str, option: str = "--where"
) -> None:
    """Parse a condition, which is then safe to use in brackets, on its own lines.

    Raises:
        CurateError: it is not a single SQL expression, or may do more than read.
    """
    try:
        where.encode()
        duckdb.SQLExpression(where)
        check_reads_only(connection, f"select ({where}\n)")
    except CurateError as error:
        raise CurateError(f"{option} {where!r}: {error}") from None
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise CurateError(f"{option} {where!r}: {first_line(error)}") from None


class Columns:
    """Converts rows' values to Arrow columns with fitting types.

    A list stays a list, an object becomes a struct (of all keys so far) and pairs become a map.
    Values of several scalar types become text. Other differing types become JSON, at whatever depth
    they differ: a list of differing items is a list of JSON. A column without a value keeps its
    earlier type, or has the type of NULL.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], pa.DataType] = {}  # by path
        self.awaited: dict[str, str] = {}  # keys that no object had when they were asked for
        self.untyped = False  # NULL's own type was too vague: take NULLs for times

    def array(self, values: list[Any], path: tuple[str, ...]) -> pa.Array:
        """Return the values of one column, or of a path in it, as an array."""
        kinds = {type(value) for value in values} - {type(None)}
        vague = pa.timestamp("us") if self.untyped and len(path) == 1 else pa.null()
        known = self._known.get(path, vague)
        nests = len(path) < MAX_DEPTH
        if nests and (kinds == {dict} or (not kinds and pa.types.is_struct(known))):
            found = self._objects(values, path, known)
        elif nests and (kinds == {list} or (not kinds and pa.types.is_list(known))):
            found = self._lists(values, path)
        else:
            found = _scalars(values, kinds) if kinds else pa.nulls(len(values), known)
        if kinds:
            self._known[path] = found.type
        for name in [name for name, said in self.awaited.items() if said and dict in kinds]:
            if any(isinstance(value, dict) and name in value for value in values):
                self.awaited[name] = ""
        return found

    def _objects(self, values: list[Any], path: tuple[str, ...], known: pa.DataType) -> pa.Array:
        names = dict.fromkeys(each.name for each in known) if pa.types.is_struct(known) else {}
        for value in values:
            names.update(dict.fromkeys(value or ()))
        folded = {name.casefold() for name in names}
        if not 0 < len(names) == len(folded) <= MAX_KEYS:
            return _json(values)
        names.update((name, None) for name in self.awaited if name.casefold() not in folded)
        fields = [
            self.array([(value or {}).get(name) for value in values], (*path, name))
            for name in names
        ]
        return pa.StructArray.from_arrays(fields, list(names), mask=_nulls(values))

    def _lists(self, values: list[Any], path: tuple[str, ...]) -> pa.Array:
        sizes = (len(value or ()) for value in values)
        offsets = pa.array([0, *accumulate(sizes)], pa.int32())
        items = [item for value in values for item in value or ()]
        if items and all(isinstance(item, tuple) for item in items):  # a map, as Arrow gives it
            keys, held = (list(each) for each in zip(*items, strict=True))
            pairs = self.array(keys, (*path, "key")), self.array(held, (*path, "value"))
            return pa.MapArray.from_arrays(offsets, *pairs, mask=_nulls(values))
        within = self.array(items, (*path, "[]"))
        return pa.ListArray.from_arrays(offsets, within, mask=_nulls(values))


def _nulls(values: list[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def _scalars(values: list[Any], kinds: set[type]) -> pa.Array:
    """Return values of one kind with their type, others as text, or as JSON where any nests."""
    if kinds & {list, dict, tuple}:
        return _json(values)
    if kinds == {int, float}:
        values, kinds = [None if v is None else float(v) for v in values], {float}
    if len(kinds) == 1 and bytes not in kinds:
        try:
            return pa.array(values, pa.string() if kinds == {str} else None)
        except (pa.ArrowException, OverflowError):
            pass  # an integer beyond 64 bits, or a type Arrow doesn't know
    return pa.array([None if value is None else as_text(value) for value in values], pa.string())


def _json(values: list[Any]) -> pa.Array:
    texts = [_json_text(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def _json_text(value: Any) -> str | None:
    """Return a value as JSON; None for null and for values that are nested too deeply."""
    if isinstance(value, str | bytes):
        value = as_text(value)
    try:
        return None if value is None else json_bytes(value).decode()
    except TypeError:
        return None


def as_text(value: Any) -> str | None:
    """Return a value as text, JSON for all but strings; None if it is nested too deeply."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    try:
        return json_bytes(value).decode()
    except TypeError:
        return None if isinstance(value, dict | list | tuple) else str(value)


def json_bytes(value: Any) -> bytes:
    """Return canonical JSON, with sorted keys, and other types as text.

    Raises:
        TypeError: the value is nested too deeply.
    """
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def first_line(error: Exception) -> str:
    """Return an error's text as one line, without the excerpt of the SQL under it."""
    text = " ".join(str(error).split("\n\nLINE ")[0].split())
    return text if text.endswith((".", "!", "?")) else text + "."
