"""The folder on disk, and a DuckDB connection that sees it through the views of `sql/`.

Parquet parts are the truth; DuckDB is the lens. Parts are immutable, so a connection sees the
corpus as it was when the connection was made, also while a run is adding to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from curate import manifest, parts
from curate.errors import CurateError
from curate.schema import EXAMPLES, SCORES, SKIPPED

if TYPE_CHECKING:
    from curate.selection import Recipe
    from curate.targets import Target

DATABASE = "corpus.duckdb"
_VIEWS = ("scores.sql", "gaps.sql")


class Corpus:
    """A folder of scored examples, opened for reading.

    `manifest` says what scored it; `sql`, `gaps` and `export` ask. Open one with `curate.open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = manifest.load(path)

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """A locked-down in-memory DuckDB with the corpus's views: no file beyond the corpus."""
        connection = duckdb.connect()
        define_views(connection, self)
        # Results must not depend on how many threads happened to run.
        connection.execute("set preserve_insertion_order = true")
        connection.execute("set allowed_directories = $1", [[str(self.path.resolve())]])
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        return connection

    def sql(
        self, query: str, params: Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Ask one question: a SELECT over examples, scores, models, skipped and gaps.

        Raises:
            CurateError: not a single SELECT, or DuckDB's own message where the query is wrong.
        """
        with readable_errors():
            statements = duckdb.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise CurateError("only a single SELECT can be asked of a corpus: it is read-only")
            cursor = self.connection.cursor()
            relation = cursor.sql(query, params=dict(params or {}))
            if relation is None:
                raise CurateError("that query gives no rows back")
            return relation

    def gaps(
        self, epsilon: float = 1.0, hold_out: Sequence[str] = (), metric: str = "relative"
    ) -> duckdb.DuckDBPyRelation:
        """The macro `gaps` of sql/views/gaps.sql as a DuckDB relation, one row per example.

        It is computed when its rows are fetched; wrong arguments raise `duckdb.Error` then.
        """
        return self.sql(
            "select * from gaps(epsilon := $epsilon, hold_out := $hold_out, metric := $metric)",
            {"epsilon": epsilon, "hold_out": list(hold_out), "metric": metric},
        )

    def export(
        self,
        output: str | Path,
        recipe: Recipe,
        target: Target | None = None,
        *,
        force: bool = False,
    ) -> dict[str, Any]:
        """Write the rows that `recipe` takes to `output` as `target` says; gives the manifest."""
        from curate.exporting import export
        from curate.targets import Target

        return export(self, Path(output), recipe, target or Target(), force=force)

    def score_parts(self, model: str) -> list[Path]:
        """The finished score parts of one model."""
        return parts.list_parts(self.path / "scores" / model)


def open_corpus(path: str | Path) -> Corpus:
    """Open a corpus folder for reading.

    Raises:
        CurateError: there is no corpus, it is broken, or a newer version wrote it.
    """
    return Corpus(Path(path))


def define_views(connection: duckdb.DuckDBPyConnection, corpus: Corpus) -> None:
    """Create `examples`, `skipped`, `models`, `scores` and `gaps` over the parts there are now."""
    root = corpus.path.resolve()
    examples = _read_parts(parts.list_parts(root / "examples"), EXAMPLES)
    skipped = _read_parts(parts.list_parts(root / "skipped"), SKIPPED)
    scores = [
        f"select {_literal(name)} as model, * from "
        f"({_read_parts(parts.list_parts(root / 'scores' / name), SCORES)})"
        for name in corpus.manifest.models
    ] or [f"select ''::varchar as model, * from ({_read_parts([], SCORES)})"]
    connection.execute(f"create view examples as {examples}")
    connection.execute(f"create view skipped as select distinct * from ({skipped})")
    connection.execute(f"create view score_parts as {' union all '.join(scores)}")
    connection.execute(
        "create table models (model varchar, role varchar, reference varchar, "
        "fingerprint varchar, tokenizer varchar, dtype varchar, backend varchar)"
    )
    for name, entry in corpus.manifest.models.items():
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
    for view in _VIEWS:
        connection.execute((resources.files("curate.sql") / "views" / view).read_text("utf-8"))


def write_database(corpus: Corpus) -> Path:
    """Write `corpus.duckdb`: the same views for any DuckDB client, replaced whole."""
    path = corpus.path / DATABASE

    def fill(temporary: Path) -> None:
        with duckdb.connect(temporary) as connection:
            define_views(connection, corpus)

    parts.write_with(path, fill)
    return path


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn DuckDB's errors about a query into one line for the user, its hint kept."""
    try:
        yield
    except duckdb.Error as error:
        message = re.sub(r"\s*\n\s*", " ", str(error).split("\nLINE ")[0].strip())
        raise CurateError(message) from None


def _read_parts(paths: Sequence[Path], schema: pa.Schema) -> str:
    """SQL that reads Parquet parts, or no rows with the same columns where there are none."""
    columns = ", ".join(field.name for field in schema)
    if paths:
        files = ", ".join(_literal(str(path)) for path in paths)
        return f"select {columns} from read_parquet([{files}])"
    nulls = ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)
    return f"select {nulls} where false"


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{member.name} {_sql_type(member.type)}" for member in kind)
        return f"struct({fields})"
    names = {"string": "varchar", "int64": "bigint", "int32": "integer", "bool": "boolean"}
    return names.get(str(kind), str(kind))


def _literal(text: str) -> str:
    """An SQL string literal: model names and paths never become SQL."""
    return "'" + text.replace("'", "''") + "'"
