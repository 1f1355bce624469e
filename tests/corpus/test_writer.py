"""The one writer: every example and reason once, and nothing that was scored is lost."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from curate.corpus.corpus import Corpus
from curate.corpus.integrity import check
from curate.corpus.writer import ScoreSink, open_for_writing
from curate.errors import CurateError
from curate.reading.examples import read
from curate.scoring.ingest import ingest
from curate.storage import leftovers, parts
from curate.storage.schema import SKIPPED
from curate.system.progress import Silent
from curate.system.stopping import Stopped, stoppable
from tests.conftest import chat
from tests.corpora import SETTINGS, corpus, entry, rows


@pytest.fixture
def made(tmp_path: Path) -> Corpus:
    """Two examples under an aligned and a misaligned model."""
    return corpus(tmp_path / "c", ["one", "two"], {"base": [1.0, 1.0], "bad": [2.0, 3.0]})


def test_an_example_read_twice_is_one_row(made: Corpus) -> None:
    """Duplicates fall away within a batch and against what is stored."""
    again = pa.concat_tables([rows(["one", "three"]), rows(["one", "three"])])
    with open_for_writing(made.path) as writer:
        assert writer.add_examples(again).num_rows == 1
        assert writer.add_examples(again).num_rows == 0
    counts = Corpus(made.path).sql("select count(*), count(distinct example_id) from examples")
    assert counts.fetchall() == [(3, 3)]


def test_a_skip_is_recorded_once(made: Corpus) -> None:
    """Reading a broken file again adds nothing to `skipped`."""
    broken = pa.Table.from_pylist(
        [{"source": "x.jsonl", "row": 3, "reason": "not JSON"}], schema=SKIPPED
    )
    for expected in (1, 0):
        with open_for_writing(made.path) as writer:
            assert writer.skips.add(broken) == expected
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
            writer.add_models({"bad": entry("aligned")}, SETTINGS)
            ingest(writer, read(list(map(str, sources)), turns="all"), Silent())
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


def test_a_stop_while_a_part_is_written_waits_for_it(
    made: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the part holds is stored, and once."""
    write, before = parts.write_part, made.sql("select count(*) from scores").fetchall()[0][0]

    def stopped(folder: Path, table: pa.Table) -> None:
        signal.raise_signal(signal.SIGTERM)
        write(folder, table)
        signal.raise_signal(signal.SIGTERM)  # `timeout` sends it twice

    monkeypatch.setattr(parts, "write_part", stopped)
    with (
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


def test_a_damaged_part_stops_a_writer_with_its_name(made: Corpus) -> None:
    """Writing on needs to know what is there; the part that can't be read is named."""
    part = next((made.path / "examples").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(CurateError, match=part.name), open_for_writing(made.path):
        pass


def test_unfinished_parts_of_a_killed_run_are_swept(made: Corpus) -> None:
    """They are never read, and the next writer removes them; others' files it leaves."""
    left = made.path / "scores" / "bad" / f"{leftovers.TEMPORARY}part-000001.parquet"
    left.write_bytes(b"half")
    folder = made.path / f"{leftovers.TEMPORARY}mix"
    folder.mkdir()
    assert len(made.gaps().fetchall()) == 2
    with open_for_writing(made.path):
        assert not left.exists()
    assert folder.exists()
