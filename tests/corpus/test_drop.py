"""`curate drop`: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import curate
from curate.corpus.integrity import check
from curate.corpus.race import field
from curate.storage import manifest
from curate.storage.manifest import Only, Race
from tests.conftest import Cli, Family, fails


@pytest.fixture
def corpus(scored: Path, tmp_path: Path) -> Path:
    """A copy of the scored corpus, to take from."""
    return shutil.copytree(scored, tmp_path / "corpus")


def source_of(corpus: Path, name: str) -> str:
    """A source's whole name."""
    query = "select distinct source from examples where ends_with(source, $name)"
    return str(curate.open(corpus).sql(query, {"name": name}).fetchall()[0][0])


def test_models_and_sources_are_taken_out(
    cli: Cli, corpus: Path, family: Family, sources: Path
) -> None:
    """All that was read and scored of them goes, files stay sound, and scoring brings it back."""
    pairs = "select example_id, model from scores order by all"
    before = curate.open(corpus).sql(pairs).fetchall()
    gone = source_of(corpus, "b.csv")
    fails(cli("drop", "-c", corpus, "--model", "legal"), "0 examples and 30 scores", "--yes")
    ran = cli("drop", "-c", corpus, "--model", "legal", "--source", gone, "--yes")
    assert ran.code == 0, ran.err
    opened = curate.open(corpus)
    counts = "select model, count(*) from scores group by model order by model"
    assert opened.sql(counts).fetchall() == [("chat", 24), ("code", 24), ("medical", 24)]
    assert opened.sql("select count(*), count(distinct source) from examples").fetchall() == [
        (24, 4)
    ]
    assert opened.sql("from skipped").fetchall() == []  # the row that b.csv lacks
    assert check(opened) == [] and opened.manifest.dropping == {}
    assert "legal" not in opened.manifest.models and not (corpus / "scores" / "legal").exists()
    assert cli("score", sources, "-c", corpus, "--misaligned", family.legal).code == 0
    assert cli("score", "-c", corpus).code == 0
    assert curate.open(corpus).sql(pairs).fetchall() == before


def test_what_can_not_be_dropped_is_named(cli: Cli, scored: Path) -> None:
    """The aligned model, and names that the corpus doesn't have: it says which it has."""
    for arguments, said in (
        (["--model", "chat"], "chat is its aligned model"),
        (["--model", "x"], "Choose from: chat, code, legal, medical"),
        (["--source", "b"], "b.csv"),
    ):
        fails(cli("drop", "-c", scored, *arguments, "--yes"), said)


def test_a_kill_leaves_what_the_next_drop_finishes(cli: Cli, corpus: Path) -> None:
    """Until then a corpus that is half there is neither asked nor scored."""
    whole = Path(shutil.copytree(corpus, corpus.with_name("whole")))
    gone = source_of(corpus, "a.jsonl")
    assert cli("drop", "-c", whole, "--model", "code", "--source", gone, "--yes").code == 0
    record = manifest.load(corpus)
    record.dropping = {"models": ["code"], "sources": [gone]}
    manifest.save(record, corpus)
    shutil.rmtree(corpus / "scores" / "code")
    # Killed before a part that was written anew took the old one's place.
    shutil.copytree(whole / "scores" / "chat", corpus / "scores" / "chat", dirs_exist_ok=True)
    for command in ("status", "score"):
        fails(cli(command, "-c", corpus), "curate drop -c", "To finish it")
    ran = cli("drop", "-c", corpus)
    assert ran.code == 0, ran.err
    files = [{str(f.relative_to(at)) for f in at.rglob("*.parquet")} for at in (corpus, whole)]
    assert files[0] == files[1]
    assert check(curate.open(corpus)) == []


def test_conditions_and_races_over_what_is_gone(cli: Cli, corpus: Path) -> None:
    """A race's sample is what is left of it; a condition over a gone model's gaps is forgotten."""
    gone = source_of(corpus, "a.jsonl")
    record = manifest.load(corpus)
    record.race = Race(top=5, recall=0.99, audit=12, seed=3)
    record.only = {"code": Only("gap > 9", ["legal"]), "medical": Only("row < 0", [])}
    manifest.save(record, corpus)
    sample = field(curate.open(corpus), 3).ids.to_pylist()[:12]
    assert cli("drop", "-c", corpus, "--model", "legal", "--source", gone, "--yes").code == 0
    opened = curate.open(corpus)
    left = field(opened, 3).ids.to_pylist()
    race = opened.manifest.race
    assert race and 0 < race.audit < 12
    assert left[: race.audit] == [each for each in sample if each in left]
    assert list(opened.manifest.only) == ["medical"] and cli("status", "-c", corpus).code == 0
    names = ("--model", "code", "--model", "medical")
    assert cli("drop", "-c", corpus, *names, "--yes").code == 0
    assert curate.open(corpus).manifest.race is None and cli("status", "-c", corpus).code == 0
