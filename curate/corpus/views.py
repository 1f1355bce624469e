"""The SQL views over a corpus's Parquet parts: what `sql/views/` defines, and what it stands on."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError
from curate.storage import parts
from curate.storage.manifest import ModelEntry
from curate.storage.schema import EXAMPLES, KEY, SCORED, SCORES, SKIPPED

_FILES = ("examples.sql", "scores.sql", "gaps.sql", "model_gaps.sql", "comments.sql")
_KEYED = "example_id::uuid as key, * exclude (example_id)"
"""Ids as 128-bit numbers, which join and group faster than their digits; sql/views shows digits.
Parts of format 1 hold the digits: they are read the same."""


def define_views(
    connection: duckdb.DuckDBPyConnection, folder: Path, models: Mapping[str, ModelEntry]
) -> list[str]:
    """Create the views and macros of docs/sql.md over the parts that a folder has now.

    Their columns carry comments (sql/views/comments.sql), which travel in corpus.duckdb.
    Gives back the names by which DuckDB opens the parts: all that the views need.
    """
    root = folder.resolve()
    exampled, skips = parts.list_parts(root / "examples"), parts.list_parts(root / "skipped")
    # Constants a model: a filter on them leaves the other models' parts unread.
    scored = {name: parts.list_parts(root / "scores" / name) for name in models}
    examples, skipped = _read_parts(exampled, EXAMPLES), _read_parts(skips, SKIPPED)
    known = {
        f"{_literal(name)} as model, {_literal(entry.role)} as role": scored[name]
        for name, entry in models.items()
    } or {"''::varchar as model, ''::varchar as role": []}
    numbers = [f"select {of}, {_KEYED} from ({_read_parts(p, SCORES)})" for of, p in known.items()]
    columns = f"{_KEYED} replace ({checked(OF_SCORES, root / 'scores')})"
    whole = [f"select {of}, {columns} from ({_read_scored(p)})" for of, p in known.items()]
    connection.execute(
        f"create view example_parts as select {_KEYED} "
        f"replace ({checked(OF_EXAMPLES, root / 'examples')}) from ({examples})"
    )
    connection.execute(f"create view skipped as select distinct * from ({skipped})")
    connection.execute(f"create view score_parts as {' union all '.join(numbers)}")
    connection.execute(f"create view token_parts as {' union all '.join(whole)}")
    connection.execute(
        "create table models (model varchar, role varchar, reference varchar, "
        "fingerprint varchar, tokenizer varchar, dtype varchar, backend varchar)"
    )
    for name, entry in models.items():
        connection.execute(
            "insert into models values ($1, $2, $3, $4, $5, $6, $7)",
            [
                name,
                entry.role,
                entry.reference,
                entry.fingerprint,
                entry.tokenizer,
                entry.dtype,
                entry.backend,
            ],
        )
    shipped = resources.files("curate.sql") / "views"
    connection.execute((shipped / "losses.sql").read_text("utf-8"))
    ensemble = {name: scored[name] for name in sorted(models) if models[name].role == "misaligned"}
    connection.execute(_losses(ensemble))
    for view in _FILES:
        connection.execute((shipped / view).read_text("utf-8"))
    found = [*exampled, *skips, *chain(*scored.values())]
    # A pattern is looked up by itself, what it finds by its name.
    return sorted({name for path in found for name in (str(path), _pattern(path))})


@dataclass(frozen=True)
class Column:
    """A column of a view: its SQL type, what it holds and, where it has one, its unit."""

    name: str
    type: str
    about: str
    unit: str


def described() -> dict[str, tuple[str, list[Column]]]:
    """All public views: what a row is, and the columns, from the comments in the SQL itself."""
    with duckdb.connect() as connection:
        define_views(connection, Path(os.devnull), {})
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
    """SQL for the rows of these files and of no others, with the columns that they hold.

    DuckDB takes a name for a pattern, and a folder such as `source=web` for a column's value.
    """
    files = ", ".join(_literal(_pattern(path)) for path in paths)
    return f"read_parquet({', '.join([f'[{files}]', 'hive_partitioning = false', *options])})"


def misfit(part: Path, schema: pa.Schema) -> str | None:
    """Which column of a part is not of its type; None where all are, or the file can't be read."""
    try:
        return _misfit(pq.read_schema(part), schema)
    except (OSError, pa.ArrowException):
        return None
    except UnicodeDecodeError:
        return "a name in it is not UTF-8"


def _misfit(found: pa.Schema, schema: pa.Schema) -> str | None:
    for name, wanted in zip(schema.names, schema.types, strict=True):
        at = found.get_field_index(name)
        if at < 0:
            return f"has no column {name}"
        kinds = {_sql_type(wanted), *(["uuid"] if name == KEY.name else [])}
        if _sql_type(found.field(at).type) not in kinds:
            return f"its column {name} is {found.field(at).type}, not {wanted}"
    return None


def _column(name: str, kind: str, comment: str) -> Column:
    about, _, unit = comment.removesuffix("]").partition(" [")
    return Column(name, kind, about, unit if comment.endswith("]") else "")


def _losses(ensemble: Mapping[str, Sequence[Path]]) -> str:
    """SQL of the macro `losses`: what the aligned model scored, the ensemble's losses beside it.

    A join for each model takes less time and memory than grouping all scores by example. It reads
    that model's parts by their names: through `score_parts` each would be planned over them all.
    """
    steps_of = "steps_of(logprob, n_tokens, truncated, per_byte) as steps"
    joins = [
        f"left join (select {_KEYED} from (select example_id, {steps_of} "
        f"from ({_read_parts(paths, SCORES)}) "
        f"where not list_contains(hold_out::varchar[], {_literal(name)}))) as m{i} using (key)"
        for i, (name, paths) in enumerate(ensemble.items())
    ]
    steps = ", ".join(f"m{i}.steps" for i in range(len(ensemble)))
    return (
        "create macro losses(hold_out, per_byte) as table "
        "select key, n_tokens, aligned.steps as aligned_steps, "
        f"[{', '.join(map(_literal, ensemble))}]::varchar[] as models, "
        f"[{steps}]::bigint[] as steps "
        f"from (select key, n_tokens, {steps_of} from score_parts where role = 'aligned') "
        f"as aligned {' '.join(joins)} where aligned.steps is not null"
    )


def _read_scored(paths: Sequence[Path]) -> str:
    """SQL that reads parts of scores with their tokens; columns that some lack are null there.

    Slower to plan for than `_read_parts`: DuckDB then opens no part, and knows no number of rows.
    """
    if not paths:
        return _read_parts(paths, SCORED)
    # Not union_by_name, which opens every part before the first row is read.
    columns = ", ".join(
        f"'{field.name}': {{name: '{field.name}', type: '{_sql_type(field.type)}', "
        "default_value: null}"
        for field in (KEY, *list(SCORED)[1:])
    )
    return f"select * from {read_parquet(paths, f'schema = map {{{columns}}}')}"


def _read_parts(paths: Sequence[Path], schema: pa.Schema) -> str:
    """SQL that reads Parquet parts, or no rows with the same columns where there are none.

    Raises:
        CurateError: a part, of a corpus from elsewhere, has columns of other types.
    """
    if paths:
        # Of the first part; DuckDB names a later one that differs.
        if (why := misfit(paths[0], schema)) is not None:
            raise CurateError(f"{paths[0]}: {why}; remove the file, or score into a new corpus")
        columns = ", ".join(field.name for field in schema)
        return f"select {columns} from {read_parquet(paths)}"
    nulls = ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)
    return f"select {nulls} where false"


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{member.name} {_sql_type(member.type)}" for member in kind)
        return f"struct({fields})"
    names = {"string": "varchar", "int64": "bigint", "int32": "integer", "bool": "boolean"}
    return "uuid" if kind == KEY.type else names.get(str(kind), str(kind))


def _pattern(path: Path) -> str:
    """The pattern that means this file alone."""
    return glob.escape(str(path))


def _literal(text: str) -> str:
    """An SQL string literal: model names and paths never become SQL."""
    return "'" + text.replace("'", "''") + "'"


_WHOLE = "len(messages) > 0 and list_bool_and(list_transform({}, lambda each: {}))"
_SCORED = "coalesce(list_bool_and(list_transform({}, lambda each: {})), true)"
OF_EXAMPLES = {
    name: (f"{name} is not null", f"{name} is null")
    for name in EXAMPLES.names
    if name not in ("example_id", "messages", "meta")
} | {
    "messages": (
        _WHOLE.format("messages", "each.role is not null and each.content is not null"),
        "messages are none, or one lacks its role or content",
    )
}
OF_SCORES = {
    "token_logprobs": (
        _SCORED.format("token_logprobs", "coalesce(isfinite(each), false)"),
        "token_logprobs hold something that is no number",
    ),
    "tokens": (_SCORED.format("tokens", "each is not null"), "tokens hold a null"),
}
OF_SCORING = {
    "example_id": ("example_id is not null", "example_id is null"),
    "messages": OF_EXAMPLES["messages"],
}
"""By column: the condition, in SQL, that each of its values meets, and what is wrong else. Of
examples in every query, of scores, and of what a run reads of examples."""


def checked(promises: dict[str, tuple[str, str]], folder: Path) -> str:
    """SQL for `* replace (...)`: the columns, each an error where a value breaks its promise.

    Columns that a query doesn't read cost it nothing.
    """

    def column(name: str, holds: str, wrong: str) -> str:
        said = f"{folder}: a row's {wrong}; curate writes no such row: score into a new corpus"
        said = said.replace("'", "''")
        return f"case when {holds} then {name} else error('{said}') end as {name}"

    return ", ".join(column(name, *promise) for name, promise in promises.items())
