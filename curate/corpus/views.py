"""The SQL views over a corpus's Parquet parts: those of `sql/views/`, and the tables they need."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import duckdb
import pyarrow as pa

from curate.storage import parts
from curate.storage.manifest import ModelEntry
from curate.storage.schema import EXAMPLES, KEY, SCORED, SCORES, SKIPPED
from curate.system.sql import literal

_SHIPPED = ("examples.sql", "scores.sql", "gaps.sql", "model_gaps.sql")
RESERVED = frozenset(
    [
        *(*EXAMPLES.names, *SCORED.names, "key", "model", "role", "nll", "gap", "unit", "rank"),
        *("rank_kept", "aligned_nll", "misaligned_nll", "misaligned_sd", "n_models", "lowest_nll"),
        *("highest_nll", "ensemble_gap", "gap_without", "reason", "reference", "fingerprint"),
        *("tokenizer", "dtype", "backend", "commit"),
    ]
)
"""Columns of the views. A source's column of the same name is available as `meta ->> 'NAME'`."""
MOST_COLUMNS = 500
_KEYED = "example_id as key, * exclude (example_id)"
"""Parts hold ids as 128-bit numbers, which join and group faster than their digits."""


def define_views(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    models: Mapping[str, ModelEntry],
    columns: Mapping[str, str] = MappingProxyType({}),
    *,
    comments: bool = False,
) -> list[str]:
    """Create the views and macros of docs/sql.md over the parts now in a folder.

    `columns` are the sources' own, which `examples` shows after its own. With `comments`, columns
    get those of sql/views/comments.sql. Returns the names by which DuckDB opens the parts: all that
    the views need.
    """
    root = folder.resolve()
    examples, skipped = parts.list_parts(root / "examples"), parts.list_parts(root / "skipped")
    scored = {name: parts.list_parts(root / "scores" / name) for name in models}
    connection.execute(
        "create table models (model varchar, role varchar, reference varchar, "
        "fingerprint varchar, tokenizer varchar, dtype varchar, backend varchar, commit varchar)"
    )
    for name, entry in models.items():
        values = [name, *astuple(entry)]
        connection.execute("insert into models values ($1, $2, $3, $4, $5, $6, $7, $8)", values)
    # DuckDB plans a view when it is created, down to each file that it would read. So they are
    # created over an empty ensemble without parts; what they read is put in place afterwards.
    _define_shipped(connection, "losses.sql")
    _define_parts(connection, {}, [], [], {})
    own = f"select *{_own_columns(columns)} from example_parts"
    connection.execute(f"create view example_rows as {own}")
    _define_shipped(connection, *_SHIPPED)
    _define_parts(connection, models, examples, skipped, scored)
    if comments:
        _define_shipped(connection, "comments.sql")
    found = [*examples, *skipped, *chain(*scored.values())]
    # DuckDB checks the pattern itself, and then each file that it matches.
    return sorted({name for path in map(str, found) for name in (path, glob.escape(path))})


def _define_parts(
    connection: duckdb.DuckDBPyConnection,
    models: Mapping[str, ModelEntry],
    examples: Sequence[Path],
    skipped: Sequence[Path],
    scored: Mapping[str, Sequence[Path]],
) -> None:
    """Create, or replace, what reads the parts: views, and the macro `losses`."""
    # Constants per model, so that a filter on them skips the other models' parts.
    known = {
        f"{literal(name)} as model, {literal(entry.role)} as role": scored[name]
        for name, entry in models.items()
    } or {"''::varchar as model, ''::varchar as role": []}
    numbers = [f"select {of}, {_KEYED} from ({_read_parts(p, SCORES)})" for of, p in known.items()]
    whole = [f"select {of}, {_KEYED} from ({_read_scored(p)})" for of, p in known.items()]
    for view, query in (
        ("example_parts", f"select {_KEYED} from ({_read_parts(examples, EXAMPLES)})"),
        ("skipped", f"select distinct * from ({_read_parts(skipped, SKIPPED)})"),
        ("score_parts", " union all ".join(numbers)),
        ("token_parts", " union all ".join(whole)),
    ):
        connection.execute(f"create or replace view {view} as {query}")
    ensemble = {name: scored[name] for name in sorted(models) if models[name].role == "misaligned"}
    connection.execute(_losses(ensemble))


@dataclass(frozen=True)
class Column:
    """A column of a view: its SQL type, its meaning and, if it has one, its unit."""

    name: str
    type: str
    about: str
    unit: str


def described() -> dict[str, tuple[str, list[Column]]]:
    """All public views: the meaning of a row, and the columns, from comments in the SQL."""
    with duckdb.connect() as connection:
        define_views(connection, Path(os.devnull), {}, comments=True)
        comments = connection.sql(
            "select view_name, comment from duckdb_views() where comment is not null union all "
            "select table_name, comment from duckdb_tables() where comment is not null"
        ).fetchall()
        columns = connection.sql(
            "select table_name, column_name, data_type, coalesce(comment, '') "
            "from duckdb_columns() where not internal order by column_index"
        ).fetchall()
    return {
        view: (about, [_column(*row) for table, *row in columns if table == view])
        for view, about in sorted(comments)
    }


def read_parquet(paths: Sequence[Path], *options: str) -> str:
    """SQL for the rows of exactly these files, with their own columns.

    DuckDB would read a file name as a pattern, and a folder such as `source=web` as a column.
    """
    files = ", ".join(literal(glob.escape(str(path))) for path in paths)
    return f"read_parquet({', '.join([f'[{files}]', 'hive_partitioning = false', *options])})"


def _define_shipped(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        file = resources.files("curate.sql") / "views" / name
        connection.execute(file.read_text("utf-8"))


def own_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """The sources' own columns that `examples` shows: those whose names are not taken."""
    found: dict[str, tuple[str, str]] = {}
    for name, kind in columns.items():
        if name.casefold() not in RESERVED and name.isprintable() and 0 < len(name) <= 100:
            found.setdefault(name.casefold(), (name, kind))
    return dict(list(found.values())[:MOST_COLUMNS])


def _own_columns(columns: Mapping[str, str]) -> str:
    """SQL for these columns; a value of another type than the column's is null."""
    made = ""
    for name, kind in own_columns(columns).items():
        # A JSON pointer can name any key.
        pointer = literal("/" + name.replace("~", "~0").replace("/", "~1"))
        value = f"meta -> {pointer}" if kind == "JSON" else f"meta ->> {pointer}"
        value = value if kind in ("JSON", "VARCHAR") else f"try_cast({value} as {kind})"
        made += f""", {value} as "{name.replace('"', '""')}\""""
    return made


def _column(name: str, kind: str, comment: str) -> Column:
    about, _, unit = comment.removesuffix("]").partition(" [")
    return Column(name, kind, about, unit if comment.endswith("]") else "")


def _losses(ensemble: Mapping[str, Sequence[Path]]) -> str:
    """SQL of the macro `losses`: one row per example, with the ensemble's losses.

    One join per model takes less time and memory than grouping all scores by example. Each reads
    its model's parts by name; through `score_parts`, DuckDB would plan each over all parts.
    """
    loss_of = "loss_of(logprob, n_tokens, truncated, per_byte) as loss"
    joins = [
        f"left join (select example_id as key, {loss_of} from ({_read_parts(paths, SCORES)}) "
        f"where not list_contains(hold_out::varchar[], {literal(name)})) as m{i} using (key)"
        for i, (name, paths) in enumerate(ensemble.items())
    ]
    losses = ", ".join(f"m{i}.loss" for i in range(len(ensemble)))
    return (
        "create or replace macro losses(hold_out, per_byte) as table "
        "select key, n_tokens, aligned.loss as aligned_loss, "
        f"[{', '.join(map(literal, ensemble))}]::varchar[] as models, "
        f"[{losses}]::double[] as losses "
        f"from (select key, n_tokens, {loss_of} from score_parts where role = 'aligned') "
        f"as aligned {' '.join(joins)} where aligned.loss is not null"
    )


def _read_scored(paths: Sequence[Path]) -> str:
    """SQL that reads parts of scores with their tokens; missing columns are null.

    Slower than `_read_parts`: DuckDB plans it without opening a part, so without row counts.
    """
    if not paths:
        return _read_parts(paths, SCORED)
    # Not union_by_name, which opens every part before the first row is read.
    columns = ", ".join(
        f"'{name}': {{name: '{name}', type: '{kind}', default_value: null}}"
        for name, kind in _sql_types(SCORED).items()
    )
    return f"select * from {read_parquet(paths, f'schema = map {{{columns}}}')}"


def _read_parts(paths: Sequence[Path], schema: pa.Schema) -> str:
    """SQL that reads Parquet parts, or no rows of the same columns if there are none."""
    if paths:
        return f"select {', '.join(schema.names)} from {read_parquet(paths)}"
    nulls = ", ".join(f"null::{kind} as {name}" for name, kind in _sql_types(schema).items())
    return f"select {nulls} where false"


def _sql_types(schema: pa.Schema) -> dict[str, str]:
    """The columns of a schema's parts, by name, with DuckDB's types."""
    fields = schema if schema is SKIPPED else schema.set(0, KEY)
    return {field.name: _sql_type(field.type) for field in fields}


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"struct({', '.join(f'{each.name} {_sql_type(each.type)}' for each in kind)})"
    names = {"string": "varchar", "int64": "bigint", "int32": "integer", "bool": "boolean"}
    return "uuid" if kind == KEY.type else names.get(str(kind), str(kind))
