"""A corpus that somebody else made with ill will: it runs nothing, and what is wrong is a line."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Cli
from corpora import corpus as made_corpus

from curate.corpus import Corpus
from curate.storage import parts
from curate.storage.schema import EXAMPLES, SCORED


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three examples under two models."""
    scores = {"chat": [1.0, 2.0, 3.0], "bad": [2.0, 5.0, 4.0]}
    return made_corpus(tmp_path / "c", ["a", "b", "c"], scores).path


# corpus.duckdb


def test_what_a_client_left_unwritten_is_not_played_over_the_new_database(
    cli: Cli, corpus: Path
) -> None:
    """One that died, or a stranger, leaves a log of changes that DuckDB would take up."""
    path = corpus / "corpus.duckdb"
    died = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]);"
        "c.execute('create view mine as select 1'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", died, str(path)], check=True)
    log = path.with_name("corpus.duckdb.wal")
    assert log.exists()
    assert cli("status", "-c", corpus).code == 0
    assert not log.exists()
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("select count(*) from gaps").fetchall() == [(3,)]


def test_a_manifest_that_is_no_file(cli: Cli, corpus: Path) -> None:
    """Nobody writes into the pipe, so to read it would wait for ever."""
    (corpus / "curate.json").unlink()
    os.mkfifo(corpus / "curate.json")
    ran = cli("status", "-c", corpus)
    assert (ran.code, ran.out) == (1, "")
    assert "curate.json: is no file" in ran.err


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


# Rows


def spoil(corpus: Path, where: str, values: dict[str, Any]) -> None:
    """Put one value in the place of all of a column's, or each in a row, in the first part."""
    part = parts.list_parts(corpus / where)[0]
    table = pq.read_table(part)
    schema = EXAMPLES if where == "examples" else SCORED
    for name, value in values.items():
        column = pa.array([value] * len(table), schema.field(name).type)
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(pa.field(name, column.type), column)
    parts.rewrite_part(part, table)


def commands(corpus: Path) -> list[list[str]]:
    """All that reads rows, in ways that read every column."""
    (first,) = Corpus(corpus).sql("select min(example_id) from examples").fetchall()[0]
    out = str(corpus.parent / "out.jsonl")
    export = ["export", "--top", "2", "--force", "-o", out]
    rules = ["--per-prompt", "1", "--max-similar", "1", "--refusal-rule", "extended"]
    return [
        ["sql", "from examples", "--format", "json"],
        ["sql", "from scores", "--format", "json"],
        ["show", first],
        [*export, *rules, "--balance", "source"],
        [*export, "--per-group", "k=1", "--refusal-field", "k"],
        ["report", "--top", "2", "--force", "-o", f"{out}.html"],
    ]


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
BROKEN: list[tuple[str, dict[str, Any]]] = [
    *(("examples", {name: None}) for name in EXAMPLES.names if name != "example_id"),
    ("examples", {"messages": []}),
    ("examples", {"messages": [None, None]}),
    ("examples", {"messages": [TURNS[0], {"role": "assistant", "content": None}]}),
    ("examples", {"messages": [TURNS[0], {"role": None, "content": "a"}]}),
    *(("examples", {"meta": text}) for text in ("{", "[1]", "null")),
    ("examples", {"meta": "[" * 100_000}),
    ("examples", {"meta": '{"k": "\\ud800"}'}),
    ("scores/chat", {"n_tokens": 0}),
    *(("scores/chat", {name: None}) for name in ("n_tokens", "logprob")),
    *(("scores/chat", {"logprob": value}) for value in (math.nan, -math.inf)),
    *(
        ("scores/*", {"token_logprobs": [value], "tokens": [text]})
        for value, text in ((None, "a"), (math.nan, "a"), (-1.0, None))
    ),
    ("scores/*", {"token_logprobs": [], "tokens": []}),
]


@pytest.mark.parametrize(("where", "values"), BROKEN)
def test_rows_that_break_a_promise_end_in_a_line(
    where: str, values: dict[str, Any], cli: Cli, corpus: Path
) -> None:
    """What no honest part holds is left out or named, and never a traceback."""
    asked = commands(corpus)
    for folder in ("scores/chat", "scores/bad") if "*" in where else (where,):
        spoil(corpus, folder, values)
    ran = [cli(*arguments, "-c", corpus) for arguments in asked]
    assert [each for each in ran if each.code not in (0, 1)] == []
    errors = [each.err for each in ran if each.code]
    assert [error for error in errors if error.count("\n") != 1] == []
    named = [error for error in errors if "curate writes no such row" in error]
    assert all(str(corpus) in error for error in named)
    verified = cli("status", "--verify", "-c", corpus)
    assert verified.code == bool(named), verified
