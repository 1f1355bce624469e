"""Corpora that earlier versions wrote are read, asked and added to by this one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import Cli
from corpora import entry, rows

import curate
from curate.storage.manifest import FORMAT_VERSION
from curate.storage.schema import SCORES
from curate.storage.writing import open_for_writing

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(path for path in GOLDEN.iterdir() if (path / "curate.json").exists())


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a corpus, which may be written to."""
    return Path(shutil.copytree(request.param, tmp_path / "corpus"))


def test_each_format_is_there() -> None:
    """Whoever changes the format keeps a corpus of it: see tests/golden/make.py."""
    assert [folder.name for folder in FOLDERS] == [f"v{n + 1}" for n in range(FORMAT_VERSION)]


def test_an_old_corpus_answers(corpus: Path, cli: Cli, request: pytest.FixtureRequest) -> None:
    """The numbers are those that its own version showed, and every command takes it."""
    wanted = json.loads((GOLDEN / f"{request.node.callspec.id}-gaps.json").read_text("utf-8"))
    found = curate.open(corpus).sql("select prompt, answer, gap, rank from gaps order by rank")
    for row, known in zip(found.fetchall(), wanted, strict=True):
        assert row[:2] == (known["prompt"], known["answer"])
        assert row[2] == pytest.approx(known["gap"], abs=1e-12)
    for command in (["status", "--verify"], ["models"], ["sql", "top_gaps"]):
        ran = cli(*command, "-c", corpus)
        assert ran.code == 0, ran.err
    ran = cli("status", "-c", corpus)
    assert "3 ranked" in ran.out
    assert "the answer is empty" in ran.out or "empty answer" in ran.out
    ran = cli("export", "-c", corpus, "--top", "2", "-o", corpus.parent / "mix.jsonl")
    assert ran.code == 0, ran.err
    first = curate.open(corpus).sql("select example_id from gaps where rank = 1").fetchall()[0][0]
    assert "tokens" in cli("show", first, "-c", corpus).out


def test_an_old_corpus_is_added_to(corpus: Path) -> None:
    """New parts stand beside the old ones, and a row that is there is known."""
    before = curate.open(corpus).sql("select count(*) from examples").fetchall()[0][0]
    with open_for_writing(corpus) as writer:
        old = curate.open(corpus).sql("select * from examples").to_arrow_table()
        assert writer.add_examples(old.cast(rows(["x"]).schema)) == 0
        assert writer.add_examples(rows(["a new answer"])) == 1
        settings = writer.manifest.settings
        assert settings is not None
        writer.admit({"late": entry("misaligned")}, settings)
        ids = [*old["example_id"].to_pylist()]
        columns = [ids, [3] * len(ids), [-1.0] * len(ids), [False] * len(ids)]
        writer.add_scores("late", pa.table(columns, schema=SCORES))
    opened = curate.open(corpus)
    assert opened.sql("select count(*) from examples").fetchall() == [(before + 1,)]
    query = "select count(distinct model), count(*) from scores join examples using (example_id)"
    assert opened.sql(query).fetchall() == [(4, 3 * (before - 1) + before)]
