"""The folder on disk: parts, manifest, lock, views, the read-only door."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus import writer as writing
from curate.corpus.corpus import Corpus, renew_database
from curate.corpus.integrity import check
from curate.corpus.writer import ScoreSink, open_for_writing, time
from curate.errors import CurateError
from curate.reading.examples import read
from curate.scoring.ingest import take_in
from curate.scoring.passes import _windows
from curate.storage import leftovers, parts
from curate.storage.schema import KEY, SCORES, SKIPPED
from curate.system.progress import Silent
from curate.system.stopping import Stopped, stoppable
from tests.conftest import chat
from tests.corpora import SETTINGS, corpus, entry, rows


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


def test_an_example_read_twice_is_one_row(made: Corpus) -> None:
    """Duplicates fall away within a batch and against what is stored."""
    again = pa.concat_tables([rows(["one", "three"]), rows(["one", "three"])])
    with open_for_writing(made.path) as writer:
        assert writer.add_examples(again) == 1
        assert writer.add_examples(again) == 0
    counts = Corpus(made.path).sql("select count(*), count(distinct example_id) from examples")
    assert counts.fetchall() == [(3, 3)]


def test_a_skip_is_recorded_once(made: Corpus) -> None:
    """Reading a broken file again adds nothing to `skipped`."""
    broken = pa.Table.from_pylist(
        [{"source": "x.jsonl", "row": 3, "reason": "not JSON"}], schema=SKIPPED
    )
    for expected in (1, 0):
        with open_for_writing(made.path) as writer:
            assert writer.add_skipped(broken) == expected
    assert Corpus(made.path).sql("select source, row, reason from skipped").fetchall() == [
        ("x.jsonl", 3, "not JSON")
    ]


def test_a_mended_row_is_no_skip(tmp_path: Path) -> None:
    """Read again, it leaves `skipped`; what is broken still, or was not read again, stays."""
    one, two, nothing = (tmp_path / f"{name}.jsonl" for name in ("one", "two", "nothing"))
    good, bad = '{"prompt": "q", "response": "a"}\n', "{\n"
    half = json.dumps({"messages": [*chat("q", " "), *chat("r", "a")]}) + "\n"

    def read_them(*sources: Path) -> list[object]:
        with open_for_writing(tmp_path / "c") as writer:
            writer.admit({"bad": entry("aligned")}, SETTINGS)
            take_in(writer, read(list(map(str, sources)), turns="all"), Silent())
            if len(sources) == 3:
                with ScoreSink(writer, "bad") as sink:
                    sink.skip("f" * 32, "too long")
        query = "select source, row, model from skipped order by all"
        return Corpus(tmp_path / "c").sql(query).fetchall()

    one.write_text(good + bad + bad + half)
    two.write_text(bad + good)
    nothing.write_text("")
    stay = [(str(one), 3, None), (str(one), 4, None), (str(two), 1, None), (None, None, "bad")]
    mended = [(str(one), 2, None), (str(nothing), None, None)]
    assert set(read_them(one, two, nothing)) == {*stay, *mended}
    one.write_text(good + good + bad + half)  # as a duplicate of the row before
    nothing.write_text(good)
    assert set(read_them(one, nothing)) == set(stay)
    assert check(Corpus(tmp_path / "c")) == []
    one.write_text(good + bad + bad + half)
    assert set(read_them(one)) == {*stay, mended[0]}


def test_scores_are_stored_although_the_run_dies(made: Corpus) -> None:
    """What a sink has collected when an error comes is written on the way out."""
    example = made.sql("select example_id from examples limit 1").fetchall()[0][0]
    with (
        pytest.raises(RuntimeError),
        open_for_writing(made.path) as writer,
        ScoreSink(writer, "bad") as sink,
    ):
        sink.add(example, 7, -14.0, False)
        sink.skip("f" * 32, "too long")
        raise RuntimeError
    again = Corpus(made.path)
    assert again.sql("select nll from scores where n_tokens = 7").fetchall() == [(2.0,)]
    assert again.sql("select model, reason from skipped").fetchall() == [("bad", "too long")]


@contextmanager
def _switched_on(number: int) -> Iterator[None]:
    """A signal that a CI in the background ignores, and `stoppable` leaves so: Ctrl-C."""
    before = signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_a_part_is_written_waits_for_it(
    number: int, made: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the part holds is stored, and once."""
    write, before = parts.write_part, made.sql("select count(*) from scores").fetchall()[0][0]

    def stopped(folder: Path, table: pa.Table) -> None:
        signal.raise_signal(number)
        write(folder, table)
        signal.raise_signal(number)  # `timeout` sends it twice

    monkeypatch.setattr(parts, "write_part", stopped)
    with (
        _switched_on(number),
        pytest.raises(Stopped),
        stoppable(),
        open_for_writing(made.path) as writer,
        ScoreSink(writer, "bad") as sink,
    ):
        for example in range(100):
            sink.add(f"{example:032x}", 1, -1.0, False)
        sink.skip("f" * 32, "too long")
        sink.flush()
        pytest.fail("the stop takes effect once the part is stored")
    again = Corpus(made.path)
    assert again.sql("select count(*) from scores").fetchall() == [(before + 100,)]
    assert again.sql("select count(*) from skipped").fetchall() == [(1,)]


def test_skips_alone_are_stored_too(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that can score nothing keeps no endless list of reasons in memory."""
    monkeypatch.setattr(writing, "FLUSH_ROWS", 2)
    with open_for_writing(made.path) as writer:
        sink = ScoreSink(writer, "bad")
        for number in range(5):
            sink.skip(f"{number:032x}", "too long")
        stored = Corpus(made.path).sql("select count(*) from skipped").fetchall()
        assert stored == [(4,)]


def test_a_long_run_stores_fewer_parts_an_hour(
    made: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time between two parts grows to a minute: what a kill loses, and days few files."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with open_for_writing(made.path) as writer:
        sink = ScoreSink(writer, "bad")
        monkeypatch.setattr(writer, "add_scores", lambda model, table: stored.append(now))
        stored: list[float] = []
        while now < 4 * 86_400:
            now += 5.0
            sink.add("0" * 32, 1, -1.0, False)
    assert stored[0] == 5.0
    assert len(stored) < 6_500
    assert max(b - a for a, b in pairwise(stored)) <= 60.0


def test_kept_tokens_are_stored_before_they_fill_the_memory(
    made: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows may hold millions of texts."""
    monkeypatch.setattr(writing, "FLUSH_TOKENS", 100)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    stored: list[int] = []
    with open_for_writing(made.path) as writer:
        monkeypatch.setattr(writer, "add_scores", lambda model, table: stored.append(len(table)))
        for kept in (True, False):
            with ScoreSink(writer, "bad", keep_tokens=kept) as sink:
                for _ in range(8):
                    sink.add("0" * 32, 40, -1.0, False)
            stored.append(0)
    assert stored == [3, 3, 2, 0, 8, 0]


def test_a_damaged_part_stops_a_writer_with_its_name(made: Corpus) -> None:
    """Writing on needs to know what is there; the part that can't be read is named."""
    part = next((made.path / "examples").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(CurateError, match=part.name), open_for_writing(made.path):
        pass


def test_temporary_files_of_a_killed_run_are_swept(made: Corpus) -> None:
    """They are never read, and the next writer removes them; others' beside them it leaves."""
    left = made.path / "scores" / "bad" / f"{leftovers.TEMPORARY}99-part-000001.parquet"
    left.write_bytes(b"half")
    folder = made.path / f"{leftovers.TEMPORARY}99-mix"
    folder.mkdir()
    assert len(made.gaps().fetchall()) == 2
    with open_for_writing(made.path):
        assert not left.exists()
    assert folder.exists()


@pytest.mark.parametrize("name", ["mix.jsonl", "mix-old-1.jsonl"])
def test_what_a_killed_output_left_is_removed(name: str, tmp_path: Path) -> None:
    """By the next one to the same place: of dead processes of this machine only."""
    code = (
        "import os, sys, pathlib; from curate.storage import parts\n"
        "with parts.atomic_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'rows').write_text('new'); os._exit(9)"
    )
    output = tmp_path / name
    output.mkdir()
    subprocess.run([sys.executable, "-c", code, str(output)], check=False)
    (left,) = tmp_path.glob(f"{leftovers.TEMPORARY}*")
    other = left.with_name(left.name.replace(".", ".x", 2))
    elsewhere = tmp_path / re.sub(r"\.[0-9a-f]{8}\.", ".00000000.", left.name)
    left.rename(left.with_name(left.name.replace(leftovers.TEMPORARY, ".old-")))
    for each in (left, other, elsewhere):
        each.mkdir()
    with parts.atomic_folder(output) as folder:
        (folder / "rows").write_text("newer")
    assert {path.name for path in tmp_path.iterdir()} == {name, other.name, elsewhere.name}
    assert (output / "rows").read_text() == "newer"


def test_outputs_that_belong_together_fail_together(tmp_path: Path) -> None:
    """A name that can't be taken is found before the first one is."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")
    paths = tmp_path / "b", tmp_path / "a"
    with pytest.raises(CurateError, match="is a folder"), parts.atomic_together(*paths) as made:
        made[1].write_text("new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An atomic write is whole or not at all."""
    path = tmp_path / "file.txt"
    parts.write_text(path, "old")
    with pytest.raises(RuntimeError), parts.atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """An operating system's error names the file and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CurateError, match=r"can't be written .* run the same command again"):
        parts.write_text(tmp_path / "file" / "below.txt", "text")


def test_two_writers_do_not_meet(made: Corpus) -> None:
    """The second is told, and works once the first has ended."""
    code = (
        "import sys, curate.corpus.writer as w, pathlib\n"
        "try:\n    with w.open_for_writing(pathlib.Path(sys.argv[1])): pass\n"
        "except Exception as e: print(e)"
    )

    def other() -> str:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(made.path)], capture_output=True, text=True, check=True
        )
        return ran.stdout

    with open_for_writing(made.path):
        assert f"another `curate score` (process {os.getpid()} on " in other()
    assert other() == ""


def test_readers_see_what_was_there_when_they_opened(made: Corpus) -> None:
    """A run that adds parts doesn't change an open connection's answers."""
    assert len(made.gaps().fetchall()) == 2
    with open_for_writing(made.path) as writer:
        writer.add_examples(rows(["three"]))
    assert made.sql("select count(*) from examples").fetchall() == [(2,)]
    assert Corpus(made.path).sql("select count(*) from examples").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("entries", "settings", "words"),
    [
        ({"bad": entry("misaligned", fingerprint="f1")}, SETTINGS, "its fingerprint is not the"),
        ({"bad": entry("misaligned", tokenizer="other")}, SETTINGS, "its tokenizer is not the"),
        ({"other": entry("aligned")}, SETTINGS, "has an aligned model already"),
        ({"bad": entry("aligned")}, SETTINGS, "is the corpus's misaligned model"),
        ({"Bad": entry("misaligned")}, SETTINGS, "has a model bad; if it is this one give bad="),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    made: Corpus, entries: dict[str, object], settings: object, words: str
) -> None:
    """Another model's numbers never mix into what is stored under a name."""
    before = (made.path / "curate.json").read_bytes()
    with pytest.raises(CurateError, match=words), open_for_writing(made.path) as writer:
        writer.admit(entries, settings)  # type: ignore[arg-type]
    assert (made.path / "curate.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"answer_span": "content"}, "--answer-span"),
        ({"max_length": 9}, "--max-length"),
        ({"template_args": {"a": 1}}, "--template-arg"),
        ({"template": "t1"}, "--chat-template"),
    ],
)
def test_other_settings_are_refused(made: Corpus, change: dict[str, object], option: str) -> None:
    """Scores of another template, span or length would not compare; the option is named."""
    from dataclasses import replace

    other = replace(SETTINGS, **change)  # type: ignore[arg-type]
    with pytest.raises(CurateError, match=option), open_for_writing(made.path) as writer:
        writer.admit({}, other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a curate manifest"),
        ("[]", "no format_version"),
        ('{"format_version": 99}', "written by a newer curate"),
        ('{"format_version": 1}', "not a curate manifest"),
        ('{"format_version": 1, "settings": null, "models": [], "sources": []}', "not a curate"),
    ],
)
def test_a_broken_or_newer_manifest_is_refused(made: Corpus, text: str, words: str) -> None:
    """It says what is wrong and leaves the folder alone."""
    (made.path / "curate.json").write_text(text)
    with pytest.raises(CurateError, match=words):
        curate.open(made.path)


def test_a_folder_that_is_something_else_is_not_touched(tmp_path: Path) -> None:
    """Neither for reading nor for writing, and a file is no folder."""
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(CurateError, match="no corpus here"):
        curate.open(tmp_path)
    with pytest.raises(CurateError, match="not empty and not a corpus"), open_for_writing(tmp_path):
        pass
    with pytest.raises(CurateError, match="has a \\\\;"), open_for_writing(tmp_path / "c\\q"):
        pass
    with (
        pytest.raises(CurateError, match="is a file"),
        open_for_writing(tmp_path / "letters.txt"),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    "query",
    [
        "copy examples to 'out.csv'",
        "create table x as select 1",
        "drop view examples",
        "select 1; select 2",
        "attach 'other.db'",
        "install httpfs",
        "set threads = 1",
        "pragma database_list",
        "select * from read_text('/etc/hostname')",
        "select * from read_csv('/etc/hostname')",
        "select * from '/etc/hostname'",
        "select * from glob('/*')",
        "explain analyze copy examples to 'out.csv'",
        "",
        "selec 1",
        "select nothing from examples",
    ],
)
def test_sql_only_reads_the_corpus(made: Corpus, query: str) -> None:
    """Everything else is refused in one line, and nothing is written."""
    before = sorted(p for p in made.path.rglob("*"))
    with pytest.raises(CurateError) as caught:
        made.sql(query)
    assert "\n" not in str(caught.value)
    assert sorted(p for p in made.path.rglob("*")) == before


def test_a_typo_gets_duckdbs_hint(made: Corpus) -> None:
    """The candidates are kept."""
    with pytest.raises(CurateError, match="misaligned_nll"):
        made.sql("select misalignd_nll from gaps")


def test_an_unsafe_corpus_takes_statements(made: Corpus) -> None:
    """One that answers nothing says that it is done; no statement at all is an error."""
    unsafe = curate.open(made.path, unsafe=True)
    assert unsafe.sql("create table mine as select 1 as x").fetchall() == [(True,)]
    assert unsafe.sql("from mine").fetchall() == [(1,)]
    with pytest.raises(CurateError, match="the query is empty"):
        unsafe.sql(" ")


def test_the_database_is_left_alone_while_a_run_writes(
    made: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that finds it out of date doesn't wait for the lock, nor break what it reads."""
    monkeypatch.setattr("curate.storage.locking.PATIENCE", 0.1)
    moved = made.path.rename(tmp_path / "moved")
    before = (moved / "corpus.duckdb").read_bytes()
    with open_for_writing(moved):
        assert not renew_database(Corpus(moved))
        assert (moved / "corpus.duckdb").read_bytes() == before
    (moved / "corpus.duckdb").write_bytes(before)
    assert renew_database(Corpus(moved))


def test_the_database_has_the_models_that_came_since_it_was_opened(made: Corpus) -> None:
    """A run that ended between the opening and the lock is not forgotten."""
    with open_for_writing(made.path) as writer:
        writer.admit({"new": entry("misaligned")}, SETTINGS)
    assert renew_database(made)
    with duckdb.connect(made.path / "corpus.duckdb", read_only=True) as connection:
        models = connection.sql("select model from models order by model").fetchall()
    assert models == [("bad",), ("base",), ("new",)]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """It is refused in a line: a file in the lock's place would outlive a run that is killed."""

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(CurateError, match=r"has no locks \(flock\): put the corpus on another"):
        open_for_writing(tmp_path / "c").__enter__()
    assert not list(recwarn)
    monkeypatch.undo()
    with open_for_writing(tmp_path / "c"):
        pass


def test_the_database_opens_elsewhere(made: Corpus, tmp_path: Path) -> None:
    """corpus.duckdb answers from any working directory, for another process."""
    code = (
        "import duckdb, sys\n"
        "with duckdb.connect(sys.argv[1], read_only=True) as c:\n"
        "    print(c.sql('select answer, gap from gaps order by rank').fetchall())\n"
        "    print(c.sql('select gap from gaps(epsilon := 0) order by rank').fetchall())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(made.path / "corpus.duckdb")],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[('two', 1.0), ('one', 0.5)]\n[(2.0,), (1.0,)]\n"


def test_the_database_opens_in_duckdbs_own_shell(made: Corpus) -> None:
    """The README's line, from another directory. DuckDB 1 can't read a file of DuckDB 2."""
    shell = shutil.which("duckdb")
    said = subprocess.run([shell, "--version"], capture_output=True, text=True) if shell else None
    if said is None or not said.stdout.startswith(f"v{duckdb.__version__.split('.')[0]}."):
        pytest.skip("no DuckDB 2 shell on the PATH (the package duckdb-cli ends at 1.5)")
    query = "select source, avg(gap) from gaps group by all"
    line = [str(shell), "-readonly", "-csv", str(made.path / "corpus.duckdb"), query]
    ran = subprocess.run(line, cwd="/", capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["source,avg(gap)", "made.jsonl,0.75"]


def test_an_empty_corpus_answers_too(tmp_path: Path) -> None:
    """Views without a part have their columns and no rows."""
    with open_for_writing(tmp_path / "c"):
        pass
    empty = curate.open(tmp_path / "c")
    for view in ("examples", "scores", "models", "skipped", "gaps"):
        assert empty.sql(f"select * from {view}").fetchall() == []


def test_names_and_paths_with_quotes_stay_text(tmp_path: Path) -> None:
    """A quote in the folder's name doesn't end an SQL string."""
    made = corpus(tmp_path / "it's a 'corpus'", ["one"], {"base": [1.0], "bad": [2.0]})
    assert made.gaps().select("gap").fetchall() == [(0.5,)]


def test_parts_have_their_stated_schema(made: Corpus) -> None:
    """Other tools read them without curate."""
    schema = pq.read_schema(made.score_parts("bad")[0])
    assert schema.equals(pa.schema([KEY, *list(SCORES)[1:]]), check_metadata=False)


def test_parts_of_the_first_format_are_read_and_added_to(tmp_path: Path) -> None:
    """Their ids are text of 32 digits: the ranking is the same, and both kinds stand together."""
    nlls = {"base": [1.0, 2.0], "bad": [2.0, 2.5]}
    made = corpus(tmp_path / "c", ["one", "two"], nlls)
    wanted = made.sql("from gaps order by rank").fetchall()
    digits = duckdb.connect()
    for part in [*made.path.glob("examples/*.parquet"), *made.path.glob("scores/*/*.parquet")]:
        table = digits.sql(
            "select replace(example_id::varchar, '-', '') as example_id, * exclude (example_id) "
            f"from '{part}'"
        ).to_arrow_table()
        pq.write_table(table, part)
    record = json.loads((made.path / "curate.json").read_text())
    (made.path / "curate.json").write_text(json.dumps(record | {"format_version": 1}))
    old = curate.open(made.path)
    assert old.sql("from gaps order by rank").fetchall() == wanted
    with open_for_writing(made.path) as writer:
        assert writer.add_examples(rows(["one", "two", "three"])) == 1
        key = rows(["one", "two", "three"])["example_id"].to_pylist()[2]
        for name in nlls:
            score = {"example_id": key, "n_tokens": 1, "logprob": -3.0, "truncated": False}
            writer.add_scores(name, pa.Table.from_pylist([score], schema=SCORES))
    both = curate.open(made.path)
    assert both.sql("from gaps order by rank").fetchall()[:2] == wanted
    assert both.sql("select count(*) from ranks").fetchall() == [(3,)]
    assert json.loads((made.path / "curate.json").read_text())["format_version"] == 2


def test_the_manifest_is_readable(made: Corpus) -> None:
    """Names, roles and fingerprints stand in curate.json as JSON."""
    raw = json.loads((made.path / "curate.json").read_text())
    assert raw["format_version"] == 2
    assert raw["models"]["bad"]["role"] == "misaligned"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    """It says what can't be written."""
    tmp_path.chmod(0o500)
    with pytest.raises(CurateError, match="can't be written"), open_for_writing(tmp_path / "c"):
        pass


def test_public_names() -> None:
    """The door is small: exactly these names, each there."""
    assert all(getattr(curate, name) for name in curate.__all__)
    assert len(curate.__all__) <= 10
    with pytest.raises(AttributeError, match="no attribute"):
        _ = curate.nothing
    assert duckdb.__version__ >= "2"


@pytest.mark.parametrize("name", ["c[1]", "c*", "c[!a]"])
def test_a_folder_whose_name_is_a_pattern(name: str, tmp_path: Path) -> None:
    """It means itself and not what it matches, for curate and in corpus.duckdb."""
    corpus(tmp_path / "c1", ["other"], {"base": [1.0], "bad": [9.0]})
    made = corpus(tmp_path / name, ["one"], {"base": [1.0], "bad": [2.0]})
    assert made.gaps().select("answer").fetchall() == [("one",)]
    with duckdb.connect(made.path / "corpus.duckdb", read_only=True) as connection:
        assert connection.sql("select answer from gaps").fetchall() == [("one",)]


def test_a_folder_whose_name_says_a_value(tmp_path: Path) -> None:
    """`a=b` is a name, and no column of what lies below, for curate and in corpus.duckdb."""
    nlls = {"base": [1.0, 1.0], "bad": [2.0, 3.0]}
    names = "n_tokens=1/source=x/is_refusal=true/logprob=-5/example_id=3/row=9/messages=m"
    made = corpus(tmp_path / names, ["one", "two"], nlls)
    plain = corpus(tmp_path / "plain", ["one", "two"], nlls)
    for view in ("gaps", "examples", "scores", "model_gaps"):
        wanted = plain.sql(f"from {view} order by all").fetchall()
        assert made.sql(f"from {view} order by all").fetchall() == wanted
        with duckdb.connect(made.path / "corpus.duckdb", read_only=True) as connection:
            assert connection.sql(f"from {view} order by all").fetchall() == wanted
    with open_for_writing(made.path) as writer:
        assert writer.add_examples(rows(["one", "two", "three"])) == 1
    ids = [w["example_id"].to_pylist() for w in _windows(Corpus(made.path), ["base"], 1)]
    assert ids == [[rows(["", "", "three"])["example_id"][2].as_py()]]
