"""The folder on disk, and a DuckDB connection that sees it through the views of `sql/`.

Parts are immutable, so a connection sees the corpus as it was when it was made, also while a run
adds to it. Parts are removed only by `curate drop`, by `curate score` with --replace or to add
tokens, and when a skipped row was fixed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from curate.corpus import refusals
from curate.corpus.views import define_views, own_columns
from curate.errors import CurateError
from curate.storage import manifest, parts
from curate.storage.locking import locked
from curate.system.sql import check_reads_only, readable_errors, spill_folder

DATABASE = "corpus.duckdb"
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,  # a name in a query is never a Python variable
}


class Corpus:
    """A folder of scored examples, opened for reading.

    `manifest` says what scored it; `sql` and `gaps` ask. Open one with `curate.open`.
    `unsafe` lets queries reach other files, the network and extensions, and be any statements.
    """

    def __init__(self, path: Path, *, unsafe: bool = False) -> None:
        self.path = path
        self.unsafe = unsafe
        self.manifest = manifest.load(path)

    def __repr__(self) -> str:
        models = sorted(f"{e.role} {name}" for name, e in self.manifest.models.items())
        asks = '.sql("..."), .gaps(), .query("top_gaps")'
        return f"<Corpus {self.path}: {', '.join(models) or 'no models'}; ask with {asks}>"

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the corpus's views: unless unsafe, it opens the parts alone."""
        connection = duckdb.connect(config=_CLOSED | {"temp_directory": spill_folder()})
        record = self.manifest
        files = define_views(connection, self.path, record.models, record.columns)
        # Results must not depend on how many threads happened to run.
        connection.execute("set preserve_insertion_order = true")
        if not self.unsafe:
            connection.execute("set allowed_paths = $1", [files])
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
        return connection

    def sql(
        self, query: str, params: Mapping[str, object] | None = None, *, before: str = ""
    ) -> duckdb.DuckDBPyRelation:
        """Ask one question: a SELECT over the views that docs/sql.md lists.

        The relation gives its rows as Arrow (`to_arrow_table`), Polars (`pl`), pandas (`df`) or
        tuples (`fetchall`). An unsafe corpus takes several statements of any kind; the last one
        answers. `before` is trusted SQL that runs first, and is not checked.

        Raises:
            CurateError: not a single SELECT, or DuckDB's own message where the query is wrong.
        """
        with readable_errors(self._hint):
            cursor = self.connection.cursor()
            cursor.execute(before)
            refusals.define(cursor, query, unsafe=self.unsafe)
            if not self.unsafe:
                check_reads_only(cursor, query)
            statements = cursor.extract_statements(query)
            if not statements:
                raise CurateError("the query is empty: give a SELECT")
            for statement in statements[:-1]:
                cursor.execute(statement).fetchall()  # an unfetched result blocks the next
            relation = cursor.sql(statements[-1].query, params=dict(params or {}))
            return cursor.sql("select true as done") if relation is None else relation

    def _hint(self, complaint: str) -> str:
        """Where a column is that a query sought in another view."""
        sought = re.search(r'Referenced column "(.+?)" not found', complaint)
        if sought is None or sought[1] not in self.manifest.columns:
            return ""
        bare = sought[1] in own_columns(self.manifest.columns)
        how = "examples has it" if bare else f"a view has that name: write meta ->> '{sought[1]}'"
        return f". It is a column of the sources: {how} (join examples using (example_id))"

    def query(self, name: str, **values: object) -> duckdb.DuckDBPyRelation:
        """Ask a named query (`curate sql --list`), such as `query("agreement", epsilon=0.5)`.

        Raises:
            CurateError: no query has this name, or this parameter.
        """
        from curate.corpus import queries

        return queries.run(self, queries.find(name), values)

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


def open_corpus(path: str | Path, *, unsafe: bool = False) -> Corpus:
    """Open a corpus folder for reading.

    `unsafe`: queries may reach beyond the corpus; never for SQL that someone else wrote.

    Raises:
        CurateError: the corpus doesn't exist or is broken, or another version wrote it.
    """
    return Corpus(Path(path), unsafe=unsafe)


def write_database(corpus: Corpus) -> Path:
    """Write `corpus.duckdb`: the same views for any DuckDB client, replaced whole.

    Raises:
        CurateError: the disk is full, or a part is damaged; an old one is left as it was.
    """
    path = corpus.path / DATABASE

    def fill(temporary: Path) -> None:
        try:
            with duckdb.connect(temporary) as connection:
                connection.begin()  # else each statement waits for the disk
                record = corpus.manifest
                define_views(connection, corpus.path, record.models, record.columns)
                connection.commit()
                connection.execute("checkpoint")  # closing does it too, and hides a full disk
            # What a client that died, or a stranger, left there would be played over the new file.
            path.with_name(f"{DATABASE}.wal").unlink(missing_ok=True)
        finally:
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)

    with readable_errors():
        parts.write_with(path, fill)
    return path


def renew_database(corpus: Corpus) -> bool:
    """Write `corpus.duckdb` again if it is missing or its views are out of date.

    Gives back whether it was written: not while a run is writing, nor where the folder can't be.
    """
    with readable_errors():
        if _defined(corpus.connection) == _stored(corpus.path / DATABASE):
            return False
    try:
        with locked(corpus.path, patience=0):
            write_database(Corpus(corpus.path))  # a run may have ended since it was opened
    except (OSError, CurateError):
        return False
    return True


def _stored(path: Path) -> list[Any] | None:
    """What a `corpus.duckdb` defines; None where it is missing or can't be read."""
    try:
        with duckdb.connect(path, read_only=True, config={"enable_external_access": False}) as old:
            return _defined(old)
    except duckdb.Error:
        return None


def _defined(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    """The views and macros of a database, as SQL. They are listed, and none is run."""
    query = (
        "select view_name, sql from system.main.duckdb_views() where not internal union all "
        "select function_name, macro_definition from system.main.duckdb_functions() "
        "where not internal order by all"
    )
    return connection.cursor().execute(query).fetchall()


def has_ensemble(corpus: Corpus) -> bool:
    """Whether there is a gap to ask for: a corpus scored by the aligned model alone has none."""
    return any(entry.role == "misaligned" for entry in corpus.manifest.models.values())


def dicts(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    """A result's rows, each by column name."""
    with readable_errors():
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
