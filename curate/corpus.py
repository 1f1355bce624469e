"""The folder on disk, and a DuckDB connection that sees it through the views of `sql/`.

Parquet parts are the truth; DuckDB is the lens. Parts are immutable, so a connection sees the
corpus as it was when the connection was made, also while a run is adding to it. Parts are taken
away only by `curate score --replace`, and where a row that was skipped has been mended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from curate.errors import CurateError
from curate.storage import manifest, parts
from curate.storage.locking import locked
from curate.storage.spills import spill_folder
from curate.storage.views import define_views

if TYPE_CHECKING:
    from curate.exports.targets import Target
    from curate.selection import Recipe

DATABASE = "corpus.duckdb"
_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,  # a name in a query is never a Python variable
}


class Corpus:
    """A folder of scored examples, opened for reading.

    `manifest` says what scored it; `sql`, `gaps` and `export` ask. Open one with `curate.open`.
    `unsafe` lets queries reach other files, the network and extensions, and be any statements.
    """

    def __init__(self, path: Path, *, unsafe: bool = False) -> None:
        self.path = path
        self.unsafe = unsafe
        self.manifest = manifest.load(path)

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the corpus's views: unless unsafe, no file beyond the corpus."""
        connection = duckdb.connect(config=_CLOSED | {"temp_directory": str(spill_folder())})
        define_views(connection, self.path, self.manifest.models)
        # Results must not depend on how many threads happened to run.
        connection.execute("set preserve_insertion_order = true")
        if self.unsafe:
            return connection
        connection.execute("set allowed_directories = $1", [[str(self.path.resolve())]])
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        return connection

    def sql(
        self, query: str, params: Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Ask one question: a SELECT over the views that docs/sql.md lists.

        The relation gives its rows as Arrow (`to_arrow_table`), Polars (`pl`), pandas (`df`) or
        tuples (`fetchall`), and can be asked on. An unsafe corpus takes several statements of any
        kind; the last one answers.

        Raises:
            CurateError: not a single SELECT, or DuckDB's own message where the query is wrong.
        """
        with readable_errors():
            cursor = self.connection.cursor()
            if not self.unsafe:
                _refuse_writing(cursor, query)
            statements = duckdb.extract_statements(query)
            if not statements:
                raise CurateError("the query is empty: give a SELECT")
            for statement in statements[:-1]:
                cursor.execute(statement).fetchall()  # an unfetched result blocks the next
            relation = cursor.sql(statements[-1].query, params=dict(params or {}))
            if relation is None:
                return cursor.sql("select true as done")
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
        command: str | None = None,
    ) -> dict[str, Any]:
        """Write the rows that `recipe` takes to `output` as `target` says; gives the manifest.

        `command` is what the user typed, for the manifest.
        """
        from curate.exporting import export
        from curate.exports.targets import Target

        with readable_errors():  # a damaged part may be met late
            return export(
                self, Path(output), recipe, target or Target(), force=force, command=command
            )

    def score_parts(self, model: str) -> list[Path]:
        """The finished score parts of one model."""
        return parts.list_parts(self.path / "scores" / model)


def open_corpus(path: str | Path, *, unsafe: bool = False) -> Corpus:
    """Open a corpus folder for reading.

    `unsafe`: queries may reach beyond the corpus; never for SQL that someone else wrote.

    Raises:
        CurateError: there is no corpus, it is broken, or a newer version wrote it.
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
                define_views(connection, corpus.path, corpus.manifest.models)
                connection.execute("checkpoint")  # closing does it too, and hides a full disk
        finally:
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)

    with readable_errors():
        parts.write_with(path, fill)
    return path


def renew_database(corpus: Corpus) -> bool:
    """Make `corpus.duckdb` anew where it is not what `write_database` would write now.

    The corpus was moved, a run was killed before its end, a part was taken away, or an earlier
    version wrote it. Gives back whether it did; it leaves the file alone while a run is writing or
    it is in use.
    """
    path = corpus.path / DATABASE
    try:
        with duckdb.connect(path, read_only=True) as connection:
            if _definitions(connection) == _definitions(corpus.connection):
                return False
        with locked(corpus.path, patience=0):
            write_database(corpus)
    except (duckdb.Error, OSError, CurateError):
        return False
    return True


def _definitions(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """The views, which name the parts, the macros and the models of a database."""
    return connection.sql(
        "select sql from duckdb_views() where not internal union all "
        "select macro_definition from duckdb_functions() where not internal union all "
        "select models::varchar from models order by all"
    ).fetchall()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn DuckDB's errors about a query into one line for the user, its hint kept."""
    try:
        yield
    except duckdb.Error as error:
        message = re.sub(r"\s*\n\s*", " ", str(error).split("\nLINE ")[0].strip())
        message = message.removeprefix("Invalid Input Error: ")  # those of `error()` in sql/views
        if "No space left" in message:
            message += "; free some space, then run the same command again"
        elif ".parquet" in message:
            message += "; `curate status --verify` names the files of a corpus that are damaged"
        raise CurateError(message) from None


def _refuse_writing(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Let a single SELECT pass that only reads.

    DuckDB 2 counts `with x as (copy ... to ...) from x` as a SELECT, and so DELETE and the like:
    the kinds of all its parts are looked at, in the syntax tree, and only known ones let through.
    """
    statements = duckdb.extract_statements(query)
    if len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT:
        (tree,) = connection.execute("select json_serialize_sql($1)", [query]).fetchall()[0]
        if set(re.findall(r'"type":"(\w+_NODE)"', tree)) - _READING == set():
            return
    raise CurateError("only a single SELECT can be asked of a corpus: it is read-only")
