"""The folder on disk: its layout, the views, the read-only door, corpus.duckdb."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus.corpus import Corpus, renew_database
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.storage import parts
from curate.storage.schema import KEY, SCORES
from tests.conftest import Cli
from tests.corpora import corpus, rows


@pytest.fixture
def made(tmp_path: Path) -> Corpus:
    """Two examples under an aligned and a misaligned model."""
    return corpus(tmp_path / "c", ["one", "two"], {"base": [1.0, 1.0], "bad": [2.0, 3.0]})


def test_the_folder_is_laid_out_as_documented(made: Corpus) -> None:
    """The names on disk are a public interface."""
    names = (str(p.relative_to(made.path)) for p in made.path.rglob("*") if p.is_file())
    found = {re.sub(r"(part-\d{6})-[0-9a-f]{16}\.", r"\1.", name) for name in names}
    assert found - {".lock"} == {
        "curate.json",
        "corpus.duckdb",
        "examples/part-000000.parquet",
        "scores/base/part-000000.parquet",
        "scores/bad/part-000000.parquet",
    }


def test_parts_have_their_stated_schema(made: Corpus) -> None:
    """Other tools read them without curate."""
    schema = pq.read_schema(parts.list_parts(made.path / "scores" / "bad")[0])
    assert schema.equals(pa.schema([KEY, *list(SCORES)[1:]]), check_metadata=False)


def test_readers_see_what_was_there_when_they_opened(made: Corpus) -> None:
    """A run that adds parts doesn't change an open connection's answers."""
    assert len(made.gaps().fetchall()) == 2
    with open_for_writing(made.path) as writer:
        writer.add_examples(rows(["three"]))
    assert made.sql("select count(*) from examples").fetchall() == [(2,)]
    assert Corpus(made.path).sql("select count(*) from examples").fetchall() == [(3,)]


def test_an_empty_corpus_answers_too(tmp_path: Path) -> None:
    """Views without a part have their columns and no rows."""
    with open_for_writing(tmp_path / "c"):
        pass
    empty = curate.open(tmp_path / "c")
    for view in ("examples", "scores", "models", "skipped", "gaps"):
        assert empty.sql(f"select * from {view}").fetchall() == []


@pytest.mark.parametrize(
    "name", ["it's a 'corpus'", "c[1]", "c*", "n_tokens=1/source=x/example_id=3/row=9/messages=m"]
)
def test_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    """It is text, no pattern and no column, for curate, its writer and in corpus.duckdb."""
    corpus(tmp_path / "c1", ["other"], {"base": [1.0], "bad": [9.0]})
    nlls = {"base": [1.0, 1.0], "bad": [2.0, 3.0]}
    made = corpus(tmp_path / name, ["one", "two"], nlls)
    plain = corpus(tmp_path / "plain", ["one", "two"], nlls)
    with duckdb.connect(made.path / "corpus.duckdb", read_only=True) as connection:
        for view in ("gaps", "examples", "scores"):
            wanted = plain.sql(f"from {view} order by all").fetchall()
            assert made.sql(f"from {view} order by all").fetchall() == wanted
            assert connection.sql(f"from {view} order by all").fetchall() == wanted
    with open_for_writing(made.path) as writer:
        assert writer.add_examples(rows(["one", "two", "three"])).num_rows == 1


def test_a_typo_gets_duckdbs_hint(made: Corpus) -> None:
    """The candidates are kept, and the columns that there are follow with their types."""
    with pytest.raises(
        CurateError, match=r"Candidate.*gaps has .*prompt varchar.* aligned_nll double"
    ):
        made.sql("select question from gaps")
    with pytest.raises(CurateError, match="misaligned_nll"):
        made.sql("select misalignd_nll from gaps")


def test_an_unsafe_corpus_takes_statements(made: Corpus) -> None:
    """One that answers nothing says that it is done; no statement at all is an error."""
    unsafe = curate.open(made.path, unsafe=True)
    assert unsafe.sql("create table mine as select 1 as x").fetchall() == [(True,)]
    assert unsafe.sql("from mine").fetchall() == [(1,)]
    with pytest.raises(CurateError, match="the query is empty"):
        unsafe.sql(" ")


def test_the_database_opens_elsewhere(made: Corpus, tmp_path: Path) -> None:
    """corpus.duckdb answers from any working directory, for another process."""
    code = (
        "import duckdb, sys\n"
        "with duckdb.connect(sys.argv[1], read_only=True) as c:\n"
        "    print(c.sql('select answer, gap from gaps order by rank').fetchall())\n"
        "    print(c.sql('select gap from gaps(epsilon := 0) order by rank').fetchall())"
    )
    command = [sys.executable, "-c", code, str(made.path / "corpus.duckdb")]
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert ran.stdout == "[('two', 1.0), ('one', 0.5)]\n[(2.0,), (1.0,)]\n"


def test_the_database_is_left_alone_while_a_run_writes(made: Corpus, tmp_path: Path) -> None:
    """A reader that finds it out of date doesn't wait for the lock."""
    moved = made.path.rename(tmp_path / "moved")
    before = (moved / "corpus.duckdb").read_bytes()
    with open_for_writing(moved):
        assert not renew_database(Corpus(moved))
        assert (moved / "corpus.duckdb").read_bytes() == before
    (moved / "corpus.duckdb").write_bytes(before)
    assert renew_database(Corpus(moved))


def _another_formula(path: Path) -> None:
    with duckdb.connect(path) as connection:
        connection.execute("create or replace macro gap_of(a, b, c := 1.0, d := '') as 0")


def _fewer_parts(path: Path) -> None:
    part = parts.list_parts(path.parent / "scores" / "bad")[0]
    parts.rewrite_part(part, pq.read_table(part).slice(0, 1))


STALE = {
    "missing": Path.unlink,
    "no database": lambda path: path.write_bytes(b"no database"),
    "of an earlier version": _another_formula,
    "of other parts": _fewer_parts,
}


@pytest.mark.parametrize("kind", STALE)
def test_status_writes_a_stale_database_anew(kind: str, made: Corpus, cli: Cli) -> None:
    """Only then, and it says so; other commands that read write nothing."""
    path = made.path / "corpus.duckdb"
    STALE[kind](path)
    ranked = len(Corpus(made.path).gaps().fetchall())
    for command in (["sql", "from gaps"], ["models"], ["status", "--json"], ["status"]):
        ran = cli(*command, "-c", made.path)
        assert ran.code == 0, ran
    assert "corpus.duckdb" not in ran.out  # --json wrote it already
    with duckdb.connect(path, read_only=True) as connection:
        assert len(connection.sql("from gaps where gap <> 0").fetchall()) == ranked
    path.unlink()
    assert "corpus.duckdb was missing or out of date" in cli("status", "-c", made.path).out
    before = path.stat().st_mtime_ns
    assert cli("status", "-c", made.path).code == 0
    assert path.stat().st_mtime_ns == before


EVIL = "with x as (copy (select ''owned'') to ''{mark}'' (format csv)) from x"
RUN = f"from json_execute_serialized_sql(json_serialize_sql('{EVIL}'))"


@pytest.mark.parametrize(
    "statement",
    [
        f"create view models as {RUN}",
        f"create macro duckdb_views() as table {RUN}",
    ],
)
def test_nothing_in_its_database_is_run(
    statement: str, cli: Cli, made: Corpus, tmp_path: Path
) -> None:
    """A corpus from elsewhere brings a corpus.duckdb; its views are listed and never asked."""
    path, mark = made.path / "corpus.duckdb", tmp_path / "owned"
    path.unlink()
    with duckdb.connect(path) as connection:
        connection.execute(statement.replace("{mark}", str(mark)))
    assert cli("status", "-c", made.path).code == 0
    assert not mark.exists()
    with duckdb.connect(path, read_only=True) as connection:
        assert len(connection.sql("from gaps").fetchall()) == 2
