"""A corpus that somebody else made with ill will: it runs nothing, and what is wrong is a line."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from conftest import Cli
from corpora import corpus as made_corpus

from curate.corpus import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three examples under two models."""
    scores = {"chat": [1.0, 2.0, 3.0], "bad": [2.0, 5.0, 4.0]}
    return made_corpus(tmp_path / "c", ["a", "b", "c"], scores).path


# corpus.duckdb

EVIL = "with x as (copy (select ''owned'') to ''{mark}'' (format csv)) from x"
RUN = f"from json_execute_serialized_sql(json_serialize_sql('{EVIL}'))"


@pytest.mark.parametrize(
    "statements",
    [
        [f"create view models as {RUN}"],
        ["create table models (a int)", f"create macro duckdb_views() as table {RUN}"],
        ["create table models (a int)", f"create macro duckdb_functions() as table {RUN}"],
        ["create view models as from range(1000000000000) t(model) order by hash(model)"],
        None,
    ],
)
def test_nothing_in_its_database_is_run(
    statements: list[str] | None, cli: Cli, corpus: Path, tmp_path: Path
) -> None:
    """`status` replaces corpus.duckdb, whatever it is, and never looks into it."""
    path, mark = corpus / "corpus.duckdb", tmp_path / "owned"
    path.unlink()
    if statements is None:
        path.write_bytes(b"no database")
    else:
        with duckdb.connect(path) as connection:
            for statement in statements:
                connection.execute(statement.replace("{mark}", str(mark)))
    for arguments in (["status"], ["status", "--verify"], ["models"], ["sql", "from gaps"]):
        assert cli(*arguments, "-c", corpus).code == 0
    assert not mark.exists()
    with duckdb.connect(path, read_only=True) as connection:
        views = connection.sql("select model from models order by model").fetchall()
    assert views == [("bad",), ("chat",)]
    assert Corpus(corpus).gaps().fetchall()
