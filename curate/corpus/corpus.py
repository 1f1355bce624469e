"""The folder on disk, and a DuckDB connection that sees it through the views of `sql/`.

Parts are immutable, so a connection sees the corpus as it was when the connection was opened, even
while a run adds to it. Parts are removed only by `curate drop`, by `curate score --replace`, when
tokens are added, and when a skipped row has been fixed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb

from curate.corpus import queries, refusals
from curate.corpus.views import define_views, own_columns
from curate.errors import CurateError
from curate.storage import manifest, parts
from curate.storage.locking import locked
from curate.system.sql import check_reads_only, readable_errors, short_type, spill_folder

DATABASE = "corpus.duckdb"
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,  # a name in a query is never a Python variable
}
UNSKIPPED = """
anti join (select example_id::uuid as key from skipped where model is not null) using (key)
order by md5($seed || ':' || hex_id(key)), key
"""
"""Leaves the examples that no model has skipped, in random order: a race's audit sample first."""


class Corpus:
    """A folder of scored examples, opened for reading.

    `manifest` describes its models and sources; `sql` and `gaps` query it. Open one with
    `curate.open`. `unsafe` allows any statements, and access to other files, the network and
    extensions.
    """

    def __init__(self, path: Path, *, unsafe: bool = False) -> None:
        self.path = path
        self.unsafe = unsafe
        self.manifest = manifest.load(path)

    def __repr__(self) -> str:
        models = sorted(f"{e.role} {name}" for name, e in self.manifest.models.items())
        asks = '.sql("..."), .gaps(), .query("top_gaps")'
        return f"<Corpus {self.path}: {', '.join(models) or 'no models'}; query with {asks}>"

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the corpus's views; unless unsafe, it opens only the parts."""
        connection = duckdb.connect(config=_CLOSED | {"temp_directory": spill_folder()})
        record = self.manifest
        files = define_views(connection, self.path, record.models, record.columns)
        # Results must not depend on the number of threads.
        connection.execute("set preserve_insertion_order = true")
        if not self.unsafe:
            connection.execute("set allowed_paths = $1", [files])
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
        return connection

    def sql(
        self, query: str, params: Mapping[str, object] | None = None, *, before: str = ""
    ) -> duckdb.DuckDBPyRelation:
        """Run one query: a SELECT over the views that docs/sql.md lists.

        The relation returns its rows as Arrow (`to_arrow_table`), Polars (`pl`), pandas (`df`) or
        tuples (`fetchall`). An unsafe corpus accepts several statements of any kind and returns the
        result of the last. `before` is trusted SQL that runs first, unchecked.

        Raises:
            CurateError: it is not a single SELECT, or DuckDB rejects it.
        """
        with readable_errors(lambda complaint: self._hint(complaint, query)):
            cursor = self.connection.cursor()
            cursor.execute(before)
            refusals.define(cursor, query, unsafe=self.unsafe)
            if not self.unsafe:
                check_reads_only(cursor, query)
            statements = cursor.extract_statements(query)
            if not statements:
                raise CurateError("the query is empty. Give a SELECT.")
            for statement in statements[:-1]:
                cursor.execute(statement).fetchall()  # an unfetched result blocks the next
            relation = cursor.sql(statements[-1].query, params=dict(params or {}))
            return cursor.sql("select true as done") if relation is None else relation

    def _hint(self, complaint: str, query: str) -> str:
        """Which view has the missing column, or which columns the query's views have."""
        sought = re.search(r'Referenced column "(.+?)" not found', complaint)
        if sought is None:
            return ""
        if sought[1] not in self.manifest.columns:
            names = re.findall(r"\b(?:from|join)\s+(\w+)", query, re.IGNORECASE)
            rows = self.connection.execute(
                "select table_name, column_name, data_type from duckdb_columns() "
                "where not internal and list_contains($1, table_name) order by 1, column_index",
                [[name.lower() for name in names]],
            ).fetchall()
            return "".join(
                f". {view} has "
                + ", ".join(f"{name} {short_type(kind)}" for _, name, kind in found)
                for view, found in groupby(rows, itemgetter(0))
            )
        bare = sought[1] in own_columns(self.manifest.columns)
        how = "examples has it" if bare else f"as a view has this name, use meta ->> '{sought[1]}'"
        return f". It is a column of the sources; {how} (join examples using (example_id))"

    def query(self, name: str, **values: object) -> duckdb.DuckDBPyRelation:
        """Run a named query (`curate sql --list`), such as `query("agreement", epsilon=0.5)`.

        Raises:
            CurateError: there is no query of this name, or it has no such parameter.
        """
        return self.run(queries.find(name), values)

    def run(self, query: queries.Query, given: Mapping[str, Any]) -> duckdb.DuckDBPyRelation:
        """Run a query, with defaults for parameters that are not given.

        Raises:
            CurateError: an invalid parameter, or SQL that DuckDB rejects.
        """
        values = queries.with_values(query, given)
        top = values.get("top")
        if isinstance(top, float) and 0 < top < 1:
            ((ranked,),) = self.sql("select count(*) from ranks").fetchall()
            values["top"] = queries.depth(ranked, top)
        if "other" in values:
            self._define_other(str(values["other"]))
        views = queries.ranking_views(values)
        return self.sql(query.text, queries.bound(query, values), before=views)

    def _define_other(self, folder: str) -> None:
        """The table `other_ranks` for a query over two corpora: the gaps of the other one.

        Of a raced corpus, it holds the audit sample alone: the rest was chosen.

        Raises:
            CurateError: no folder is given, or it isn't a corpus that ranks anything.
        """
        if not folder:
            raise CurateError("-p other=DIR is missing: the corpus to compare with")
        gaps = Corpus(Path(folder)).sql("select key, gap from ranks").to_arrow_table()
        define, values = "create or replace table other_ranks as from other_gaps", {}
        if race := self.manifest.race:
            sample = f"select key from example_parts {UNSKIPPED} limit $audit"
            define += f" semi join ({sample}) using (key)"
            values = {"seed": str(race.seed), "audit": race.audit}
        with readable_errors():
            self.connection.register("other_gaps", gaps)
            self.connection.execute(define, values)

    def gaps(
        self, epsilon: float = 1.0, hold_out: Sequence[str] = (), metric: str = "relative"
    ) -> duckdb.DuckDBPyRelation:
        """The macro `gaps` of sql/views/gaps.sql as a DuckDB relation, one row per example.

        It is computed when its rows are fetched; invalid arguments raise `duckdb.Error` then.
        """
        return self.sql(
            "select * from gaps(epsilon := $epsilon, hold_out := $hold_out, metric := $metric)",
            {"epsilon": epsilon, "hold_out": list(hold_out), "metric": metric},
        )


def open_corpus(path: str | Path, *, unsafe: bool = False) -> Corpus:
    """Open a corpus folder for reading.

    `unsafe`: queries may reach beyond the corpus. Don't use it for SQL that someone else wrote.

    Raises:
        CurateError: the corpus doesn't exist or is broken, or another version wrote it.
    """
    return Corpus(Path(path), unsafe=unsafe)


def write_database(corpus: Corpus) -> Path:
    """Write `corpus.duckdb`: the same views for any DuckDB client.

    Raises:
        CurateError: the disk is full, or a part is damaged; an existing file is left as it was.
    """
    path, record = corpus.path / DATABASE, corpus.manifest
    with readable_errors(), parts.atomic(path) as temporary:
        try:
            with duckdb.connect(temporary) as connection:
                connection.begin()  # otherwise each statement waits for the disk
                define_views(connection, corpus.path, record.models, record.columns, comments=True)
                connection.commit()
                connection.execute("checkpoint")  # closing would do it too, but hide a full disk
            # A log left by a crashed client, or planted, would be replayed over the new file.
            path.with_name(f"{DATABASE}.wal").unlink(missing_ok=True)
        finally:
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    return path


def renew_database(corpus: Corpus) -> bool:
    """Rewrite `corpus.duckdb` if it is missing or its views are out of date.

    Returns whether it was written: not while a run is writing, nor in a read-only folder.
    """
    with readable_errors():
        if _defined(corpus.connection) == _stored(corpus.path / DATABASE):
            return False
    try:
        with locked(corpus.path, patience=0):
            write_database(Corpus(corpus.path))  # a run may have ended in the meantime
    except (OSError, CurateError):
        return False
    return True


def _stored(path: Path) -> list[Any] | None:
    """The definitions in a `corpus.duckdb`; None if it is missing or can't be read."""
    try:
        with duckdb.connect(path, read_only=True, config={"enable_external_access": False}) as old:
            return _defined(old)
    except duckdb.Error:
        return None


def _defined(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    """The views and macros of a database, as SQL; none of them is run."""
    query = (
        "select view_name, sql from system.main.duckdb_views() where not internal union all "
        "select function_name, macro_definition from system.main.duckdb_functions() "
        "where not internal order by all"
    )
    return connection.cursor().execute(query).fetchall()


def has_ensemble(corpus: Corpus) -> bool:
    """Whether there are gaps: a corpus scored only by the aligned model has none."""
    return bool(corpus.manifest.misaligned)


def dicts(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    """A result's rows, each by column name."""
    with readable_errors():
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
