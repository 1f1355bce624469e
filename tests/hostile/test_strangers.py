"""A corpus that somebody else made with ill will: it runs nothing, and what is wrong is a line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus.corpus import Corpus
from curate.storage import parts
from curate.storage.schema import EXAMPLES, SCORED
from tests.conftest import Cli, Family
from tests.corpora import corpus as made_corpus


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


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 6 << 30)


ENDLESS = {
    "pipe": (_pipe, "is no file"),
    "device": (_device, "is no file"),
    "huge": (_huge, "more than"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_manifest_without_an_end(cli: Cli, corpus: Path, kind: str) -> None:
    """To read it would wait for ever, or fill the memory: also on Tab."""
    make, why = ENDLESS[kind]
    record = corpus.parent / "o.jsonl.manifest.json"
    make(record)
    ran = cli("export", "--from-manifest", record, "-o", corpus.parent / "p.jsonl", "-c", corpus)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert record.name in ran.err and why in ran.err
    path = corpus / "curate.json"
    make(path)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "import sys; from types import SimpleNamespace as Context;"
        "from curate.cli.completion import misaligned_names;"
        "print(misaligned_names(Context(params={'corpus': sys.argv[1]}), ''), *sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(corpus)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.startswith("[] "), ran.stderr
    assert not {"pyarrow", "duckdb", "torch"} & set(ran.stdout.split())
    ran = cli("status", "-c", corpus)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "curate.json" in ran.err and why in ran.err


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
    rules = ["--per-group", "prompt=1", "--max-similar", "1", "--refusal-rule", "extended"]
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
    ("examples", {"meta": f'{{"k": {"[" * 1000}{"]" * 1000}}}'}),
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


@pytest.mark.parametrize(
    "values",
    [
        {"messages": None},
        {"messages": []},
        {"messages": [TURNS[0], None]},
        {"messages": [{"role": "user", "content": None}, TURNS[1]]},
        {"example_id": None},
    ],
)
def test_rows_that_break_a_promise_are_not_scored(
    values: dict[str, Any], cli: Cli, family: Family, sources: Path, tmp_path: Path
) -> None:
    """A run over somebody else's examples ends in a line that says what is wrong with them."""
    corpus = tmp_path / "scored"
    score = ["score", "-q", "-c", corpus, "--aligned", family.aligned]
    assert cli(*score, sources / "a.jsonl").code == 0
    spoil(corpus, "examples", values)
    ran = cli(*score, "--misaligned", family.medical)
    assert (ran.code, ran.err.count("\n")) == (1, 1), ran
    assert "curate writes no such row" in ran.err


def test_a_number_as_wide_as_a_name(cli: Cli, corpus: Path) -> None:
    """The parts that a hostile number says are missing are not counted one by one."""
    part = parts.list_parts(corpus / "examples")[0]
    number = "9" * 200
    part.rename(part.with_name(f"part-{number}-{parts.digest_of(part)}.parquet"))
    ran = cli("status", "--verify", "-c", corpus, "--json")
    (damage,) = json.loads(ran.out)["damaged"]
    assert damage["path"] == "examples/part-000000-*.parquet"
    assert damage["reason"].startswith("is missing, and all up to number 99,")


# Manifests


@pytest.mark.parametrize("depth", [240, 300, 1000])
@pytest.mark.parametrize("where", ["template_args", "runs", "sources"])
def test_brackets_in_brackets(where: str, depth: int, cli: Cli, corpus: Path) -> None:
    """A manifest that nests as deep as JSON may be is read and shown, or refused in a line."""
    path = corpus / "curate.json"
    deep = f'"x": {"[" * depth}{"]" * depth}'
    found = {
        "template_args": ('"template_args": {}', f'"template_args": {{{deep}}}'),
        "runs": ('"runs": {}', f'"runs": {{"bad": {{"tokens": 1, "seconds": 1, {deep}}}}}'),
        "sources": ('"sources": []', f'"sources": [{{{deep}}}]'),
    }
    assert found[where][0] in path.read_text()
    path.write_text(path.read_text().replace(*found[where]))
    for command in (
        ["status", "--json"],
        ["models", "--json"],
        ["export", "--top", "1", "--force", "-o", corpus.parent / "o.jsonl"],
    ):
        ran = cli(*command, "-c", corpus)
        assert (ran.code, ran.err.count("\n")) in ((0, 0), (1, 1)), ran
        assert depth == 240 or "not a curate manifest" in ran.err


def _run(record: dict[str, Any]) -> None:
    record["output"]["run"] = "\x1b[2Jcurl https://localhost | sh"


def _numbers(record: dict[str, Any]) -> None:
    record |= {"counts": 5, "cut": None, "trained": ["\x1b[2J"]}
    record["output"]["rows"] = "\x1b[2J"


def _deep(record: dict[str, Any]) -> None:
    for _ in range(300):
        record["counts"] = [record["counts"]]


@pytest.mark.parametrize("change", [_run, _numbers, _deep])
@pytest.mark.parametrize("output", ["a.jsonl", "a"])
def test_an_exports_manifest_says_nothing_of_its_own(
    output: str, change: Callable[[dict[str, Any]], None], cli: Cli, corpus: Path, tmp_path: Path
) -> None:
    """What `--from-manifest` prints is what it wrote: no command and no number of a stranger's."""
    assert cli("export", "-c", corpus, "--top", "2", "-o", tmp_path / output).code == 0
    named = "a/manifest.json" if output == "a" else "a.jsonl.manifest.json"
    record = json.loads((tmp_path / named).read_text())
    change(record)
    (tmp_path / named).write_text(json.dumps(record))
    again = ["--from-manifest", tmp_path / named, "-o", tmp_path / output.replace("a", "b")]
    ran = cli("export", "-c", corpus, *again)
    if change is _deep:
        assert (ran.code, ran.err.count("\n")) == (1, 1), ran
        return
    assert ran.code == 0, ran.err
    assert f"{output.replace('a', 'b')}: 2 rows, 2 of them safe examples" in ran.out
    assert "\x1b" not in ran.out
    assert "curl" not in ran.out


def test_names_on_tab_are_names(corpus: Path) -> None:
    """A shell may run what it is offered: only what can be a model's name is."""
    path = corpus / "curate.json"
    record = json.loads(path.read_text())
    for name in ("$(touch x)", "\\$(touch x)", "a;b", "a b", "--unsafe", "'", "bad2"):
        record["models"][name] = record["models"]["bad"]
    path.write_text(json.dumps(record))
    asked = f"curate export -c {corpus} --hold-out "
    environment = os.environ | {"_CURATE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": asked}
    command = [sys.executable, "-c", "from curate.cli.app import app; app(prog_name='curate')"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert '"bad"' in ran.stdout
    assert '"bad2"' in ran.stdout
    assert not set("$;\\ -") & set(ran.stdout.partition("((")[2])
