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

_READ_ONLY = "only a single SELECT can be asked of a corpus: it is read-only"
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
"""What may stand where a table stands. Any other function is refused: DuckDB has some that run SQL
in a text (`query`, `json_execute_serialized_sql`), read files, change settings or write."""
_SIDE_EFFECTS = {
    *("currval", "getenv", "nextval", "pg_sleep", "setseed", "setval", "sleep_ms", "write_log"),
}
"""Functions of single values that do more than to compute one."""
_PIVOTED = re.compile(
    r"""\bon\s+([\w."]+(?:\s*,\s*[\w."]+)*)(?=\s+(?:using|group|order|limit)\b|\s*\)|\s*;?\s*$)""",
    re.IGNORECASE,
)
"""The columns of a PIVOT that lists no values for them."""


def check_reads_only(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse all but a single SELECT that only reads.

    DuckDB 2 counts `with x as (copy ... to ...) from x` as a SELECT, and may overwrite the parts
    that it may read. So the whole syntax tree is checked: only known kinds of queries and known
    table functions pass. The connection itself opens no file beside the parts.

    Raises:
        CurateError: it may do more, and what of it.
        duckdb.Error: it is not valid SQL.
    """
    kinds = [statement.type for statement in connection.extract_statements(query)]
    if kinds == [duckdb.StatementType.MULTI]:
        # A PIVOT that looks up its values first: DuckDB gives a tree only of one that lists them.
        # The list has no quotes, so that the rest of the text is read as it was.
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
            "only a single SELECT that can be checked can be asked of a corpus; compute a PIVOT's "
            "columns first, as in `pivot (select gap > 1 as high from gaps) on high`, or use "
            "--unsafe for SQL of your own"
        )


def _checked(part: dict[str, Any]) -> dict[str, Any]:
    """One object of the tree; refused where it is an unknown kind of query, or may do more."""
    kind = part.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        raise CurateError(_READ_ONLY)
    if kind == "TABLE_FUNCTION":
        name = part["function"]["function_name"]
        if name.casefold() not in _TABLE_FUNCTIONS:
            raise CurateError(
                f"{name}() can't be asked of a corpus: it may do more than to read it "
                "(`curate sql --unsafe` lets SQL of your own)"
            )
    elif str(part.get("function_name", "")).casefold() in _SIDE_EFFECTS:
        raise CurateError(f"{part['function_name']}() can't be asked of a corpus: it does not read")
    return part


def literal(text: str) -> str:
    """An SQL string literal: model names and paths never become SQL."""
    return "'" + text.replace("'", "''") + "'"


def short_type(kind: object) -> str:
    """A column's SQL type as messages name it: of an object not its keys."""
    return str(kind).lower().partition("(")[0]


@contextmanager
def readable_errors(hint: Callable[[str], str] = lambda _: "") -> Iterator[None]:
    """Turn DuckDB's errors about a query into one line for the user, its hint kept, or ours."""
    try:
        yield
    except duckdb.Error as error:
        said = re.split(r"\nLINE |\n\s*Stack Trace", str(error))[0].strip()
        message = re.sub(r"\s*\n\s*", " ", said)
        message = message.removeprefix("Invalid Input Error: ")  # those of `error()` in sql/views
        if "No space left" in message:
            message += "; free some space, then run the same command again"
        elif "disabled by configuration" in message:
            message += "; `curate sql --unsafe` lets SQL of your own reach beside the corpus"
        elif ".parquet" in message or type(error) is duckdb.Error:
            message += "; `curate status --verify` names the files of a corpus that are damaged"
        raise CurateError(message + hint(message)) from None


@cache
def spill_folder() -> str:
    """A private folder, removed when the process ends; DuckDB's own choice is the current one.

    Empty, which keeps DuckDB to memory, where no temporary folder can be written.
    """
    try:
        return str(scratch.fresh("spill"))
    except CurateError:
        return ""
