"""Bad input at the command line: one clear message, exit 1 or 2, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli, Family, fails
from tests.files import contents, write

GOOD = {"prompt": "Why?", "response": "Because."}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of one good row."""
    return write(tmp_path / "rows.jsonl", [GOOD])


def test_a_broken_row_is_skipped_and_listed(cli: Cli, family: Family, tmp_path: Path) -> None:
    """It is counted, stands in `skipped` with its line, and with --strict it ends the run."""
    rows = [GOOD, GOOD | {"response": ""}, GOOD | {"prompt": "How?"}]
    source, corpus = write(tmp_path / "rows.jsonl", rows), tmp_path / "corpus"
    command = ["score", source, "-c", corpus, "--aligned", family.aligned]
    fails(cli(*command, "--strict"), f"{source}:2: ", "empty answer")
    assert not corpus.exists()
    ran = cli(*command)
    assert "2 new examples, 0 already there or duplicates, 1 row skipped" in ran.out
    assert "curate sql skips" in ran.out
    (found,) = json.loads(cli("sql", "from skipped", "-c", corpus, "--format", "json").out)
    assert (found["source"], found["row"], found["model"]) == (str(source), 2, None)
    assert "empty answer" in found["reason"]
    assert "empty answer" in cli("status", "-c", corpus).out


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("missing.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "no row"),
        ("rows.xlsx", b"PK", "unknown extension"),
        ("rows.jsonl.gz", b"plain text", "can't be read"),
    ],
)
def test_a_wrong_source_makes_no_corpus(
    cli: Cli, family: Family, tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    """A source that can't be read at all is named with the reason, before a folder is made."""
    source = tmp_path / name
    if data is not None:
        source.write_bytes(data)
    ran = cli("score", source, "-c", tmp_path / "corpus", *family.arguments("medical"))
    fails(ran, str(source), reason)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--where", "nope = 1"], "nope"),
        (["--where", "prompt ="], "--where"),
        (["--where", "prompt = 'else'"], "true for none of the 1 rows"),
        (["--column", "prompt=question"], "the columns are prompt, response"),
        (["--column", "prompt"], "ROLE=NAME"),
        (["--column", "question=prompt"], "unknown role"),
        (["--template-arg", "novalue"], "KEY=VALUE"),
        (["--chat-template", "missing.jinja"], "missing.jinja"),
        (["--max-length", "100000"], "reads at most 512 tokens"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "float3"], "float3"),
    ],
)
def test_a_wrong_option_makes_no_corpus(
    cli: Cli, family: Family, source: Path, tmp_path: Path, extra: list[str], reason: str
) -> None:
    """An option's value that can't be used is named, before a folder is made."""
    models = family.arguments("medical")
    fails(cli("score", source, "-c", tmp_path / "c", *models, *extra), reason)
    assert not (tmp_path / "c").exists()


def test_no_source_and_no_corpus(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Without sources there must be a corpus to score."""
    ran = cli("score", "-c", tmp_path / "c", *family.arguments("medical"))
    fails(ran, "has no examples yet. Give a SOURCE")
    assert not (tmp_path / "c").exists()


# Corpus folders


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("thesis.txt", "mine", "curate.json is missing"),
        ("curate.json", '{"format_version": 999}', "Upgrade curate"),
    ],
)
def test_a_folder_that_is_no_corpus_stays_as_it_was(
    cli: Cli, family: Family, source: Path, tmp_path: Path, name: str, text: str, reason: str
) -> None:
    """Something else, or a newer format, is refused by every command and not touched."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / name).write_text(text)
    for command in (
        ["score", source, *family.arguments("medical")],
        ["status"],
        ["models"],
        ["sql", "select 1"],
        ["show", "a"],
        ["export", "--top", "1", "-o", tmp_path / "o.jsonl"],
        ["report", "-o", tmp_path / "r.html"],
    ):
        fails(cli(*command, "-c", corpus), str(corpus), reason)
    assert contents(corpus).keys() - {".lock"} == {name}
    assert sorted(tmp_path.iterdir()) == [corpus, source]


def test_a_corpus_that_is_missing_or_a_file(cli: Cli, family: Family, source: Path) -> None:
    """Reading a corpus that isn't there says how to make one; a file is none."""
    fails(cli("status", "-c", source.parent / "none"), "not a corpus", "curate score")
    before = source.read_bytes()
    fails(cli("sql", "select 1", "-c", source), str(source), "corpus")
    fails(cli("score", source, "-c", source, *family.arguments("medical")), str(source))
    fails(cli("demo", "--dir", source), str(source))
    assert source.read_bytes() == before


def test_the_demo_replaces_no_mix_of_others(cli: Cli, tmp_path: Path) -> None:
    """What lies where its mix belongs stays, unless an earlier demo wrote there."""
    (tmp_path / "mix.jsonl").write_text("mine")
    fails(cli("demo", "--dir", tmp_path), str(tmp_path / "mix.jsonl"), "--dir")
    assert contents(tmp_path) == {"mix.jsonl": b"mine"}


# Exports


def test_nothing_ranked_writes_nothing(
    cli: Cli, family: Family, source: Path, tmp_path: Path
) -> None:
    """An export from a corpus without a misaligned model says what is missing."""
    corpus = tmp_path / "corpus"
    assert cli("score", source, "-c", corpus, "--aligned", family.aligned).code == 0
    assert cli("status", "-c", corpus).code == 0
    fails(cli("export", "-c", corpus, "--top", "1", "-o", tmp_path / "o.jsonl"), "misaligned")
    assert sorted(tmp_path.iterdir()) == [corpus, source]
