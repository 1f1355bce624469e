"""DuckDB's guard: SQL from outside only reads, its errors are readable, its spills are private."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import duckdb

from curate.errors import CurateError
from curate.system import scratch

MAX_SHOWN = 600  # characters of columns' names in a message
_READ_ONLY = "a query must be a single SELECT: the corpus is read-only"
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    # of sql/views
    *("gaps", "losses", "measured", "model_gaps", "model_ranks", "ranks", "weighed"),
    # of DuckDB: rows from their arguments or from a table, or about the views and the version
    *("generate_series", "generate_subscripts", "json_each", "json_tree", "range", "repeat"),
    *("histogram", "histogram_values", "query_table", "regexp_split_to_table", "repeat_row"),
    *("duckdb_constraints", "duckdb_databases", "duckdb_indexes", "duckdb_schemas", "unnest"),
    *("duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_settings", "duckdb_tables"),
    *("duckdb_types", "duckdb_views", "pragma_table_info", "pragma_version", "test_all_types"),
}
"""The allowed table functions. Others are rejected, because some of DuckDB's run SQL from a text
(`query`, `json_execute_serialized_sql`), read files, change settings or write."""
_SIDE_EFFECTS = {
    *("currval", "getenv", "nextval", "pg_sleep", "setseed", "setval", "sleep_ms", "write_log"),
}
"""Scalar functions with side effects."""
_PIVOTED = re.compile(
    r"""\bon\s+([\w."]+(?:\s*,\s*[\w."]+)*)(?=\s+(?:using|group|order|limit)\b|\s*\)|\s*;?\s*$)""",
    re.IGNORECASE,
)
"""The columns of a PIVOT without a list of values."""


def check_reads_only(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Reject everything but a single SELECT that only reads.

    DuckDB 2 treats `with x as (copy ... to ...) from x` as a SELECT, and can overwrite the parts
    that it can read. So the whole syntax tree is checked: only known kinds of queries and known
    table functions pass. The connection itself can open only the parts.

    Raises:
        CurateError: it may do more than read; the message says which part.
        duckdb.Error: it is not valid SQL.
    """
    kinds = [statement.type for statement in connection.extract_statements(query)]
    if kinds == [duckdb.StatementType.MULTI]:
        # DuckDB serializes a PIVOT only with a list of values, so one is added. It has no quotes,
        # so the rest of the text is parsed unchanged.
        query = _PIVOTED.sub(
            lambda on: on[0][:2] + re.sub(r"[\w.\"]+", r"\g<0> in (0)", on[0][2:]), query
        )
    elif kinds != [duckdb.StatementType.SELECT]:
        raise CurateError(_READ_ONLY)
    (tree,) = connection.execute("select json_serialize_sql($1)", [query]).fetchall()[0]
    try:
        found = json.loads(tree, object_hook=_checked)
    except RecursionError:
        raise CurateError("the query nests too deeply to be checked") from None
    if found.get("error") is not False:
        raise CurateError(
            "this SELECT can't be checked. In a PIVOT, compute the columns first, as in "
            "`pivot (select gap > 1 as high from gaps) on high`, or use --unsafe for SQL of your "
            "own"
        )


def _checked(part: dict[str, Any]) -> dict[str, Any]:
    """Check one object of the tree: an unknown kind of query or function is rejected."""
    kind = part.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        raise CurateError(_READ_ONLY)
    if kind == "TABLE_FUNCTION":
        name = part["function"]["function_name"]
        if name.casefold() not in _TABLE_FUNCTIONS:
            raise CurateError(
                f"{name}() is not allowed, because it may do more than read the corpus. For SQL of "
                "your own, use --unsafe."
            )
    elif str(part.get("function_name", "")).casefold() in _SIDE_EFFECTS:
        raise CurateError(f"{part['function_name']}() is not allowed: it has side effects")
    return part


def literal(text: str) -> str:
    """A SQL string literal, so that model names and paths never become SQL."""
    return "'" + text.replace("'", "''") + "'"


def short_type(kind: object) -> str:
    """A column's SQL type for messages: for an object, without its keys."""
    return str(kind).lower().partition("(")[0]


def shown_columns(relation: duckdb.DuckDBPyRelation) -> str:
    """A relation's columns with their types, for messages."""
    pairs = zip(relation.columns, relation.types, strict=True)
    return ", ".join(f"{name} {short_type(kind)}" for name, kind in pairs)[:MAX_SHOWN]


@contextmanager
def readable_errors(hint: Callable[[str], str] = lambda _: "") -> Iterator[None]:
    """Turn DuckDB's errors about a query into one line, with DuckDB's hint or our own."""
    try:
        yield
    except duckdb.Error as error:
        text = re.split(r"\nLINE |\n\s*Stack Trace", str(error))[0].strip()
        message = re.sub(r"\s*\n\s*", " ", text)
        message = message.removeprefix("Invalid Input Error: ")  # those of `error()` in sql/views
        if "No space left" in message:
            message += ". Free some space, then run the same command again."
        elif "disabled by configuration" in message:
            message += ". SQL of your own can access more with `curate sql --unsafe`."
        elif ".parquet" in message or type(error) is duckdb.Error:
            message += ". To find damaged files, run `curate status --verify`."
        raise CurateError(message + hint(message)) from None


@cache
def spill_folder() -> str:
    """A private folder for DuckDB, removed when the process ends.

    Empty, which limits DuckDB to memory, if no temporary folder can be created.
    """
    try:
        return str(scratch.fresh("spill"))
    except CurateError:
        return ""
