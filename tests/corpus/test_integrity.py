"""Files that a disk, a copy or a person damaged: found, named, and what is left goes on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import curate
from curate.storage import parts
from tests.conftest import Cli, Family
from tests.files import write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of twenty rows."""
    rows = [{"prompt": f"What is {n} + {n}?", "completion": f"It is {2 * n}."} for n in range(20)]
    return write(tmp_path_factory.mktemp("source") / "rows.jsonl", rows)


@pytest.fixture(scope="module")
def whole(family: Family, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with two parts of examples, and two of scores of each model."""
    corpus = tmp_path_factory.mktemp("whole") / "corpus"
    for limit in (12, None):
        models = {"aligned": str(family.aligned), "misaligned": [str(family.code)]}
        curate.score([str(source)], corpus, **models, limit=limit)
    return corpus


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


def _flip(part: Path) -> None:
    found = bytearray(part.read_bytes())
    found[random.Random(part.name).randrange(len(found))] ^= 4
    part.write_bytes(found)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit flipped": (_flip, "its bytes have changed"),
    "cut short": (lambda part: part.write_bytes(part.read_bytes()[:-9]), "its bytes have changed"),
    "emptied": (lambda part: part.write_bytes(b""), "its bytes have changed"),
    "missing": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("a bit flipped", "examples"),
        ("cut short", "scores/chat"),
        ("emptied", "scores/code"),
        ("missing", "examples"),
        ("missing", "scores/chat"),
    ],
)
def test_damage_is_found_named_and_mended(
    kind: str, where: str, cli: Cli, family: Family, source: Path, corpus: Path
) -> None:
    """`status --verify` names the file; moved away, the next run computes what it held."""
    gaps = "select * from gaps order by example_id"
    wanted = curate.open(corpus).sql(gaps).to_arrow_table()
    first = parts.list_parts(corpus / where)[0]
    damage, words = DAMAGES[kind]
    damage(first)

    ran = cli("status", "--verify", "-c", corpus)
    assert (ran.code, ran.err) == (1, "")
    name = "part-000000-*.parquet" if kind == "missing" else first.name
    assert name.replace("*", "") in ran.out.replace("*", "")
    assert words in " ".join(ran.out.split())
    found = json.loads(cli("status", "--verify", "--json", "-c", corpus).out)["damaged"]
    assert [each["path"] for each in found] == [f"{where}/{name}"]

    first.unlink(missing_ok=True)
    assert curate.open(corpus).sql("select count(*) from scores").fetchall()[0][0] in (28, 40)
    ran = cli("score", source, "-c", corpus, *family.arguments("code"))
    assert ran.code == 0, ran.err
    assert curate.open(corpus).sql(gaps).to_arrow_table().equals(wanted)
    ran = cli("status", "--verify", "-c", corpus)
    assert ran.code == 0
    assert "All files are intact" in ran.out


def test_lost_examples_show_in_their_scores(cli: Cli, corpus: Path) -> None:
    """The last part leaves no gap in the numbers, but scores of what it held."""
    parts.list_parts(corpus / "examples")[-1].unlink()
    ran = cli("status", "--verify", "-c", corpus)
    assert ran.code == 1
    assert "lack 8 examples that have scores" in ran.out


@pytest.mark.parametrize("where", ["examples", "scores/chat"])
def test_a_part_copied_under_another_number(where: str, cli: Cli, corpus: Path) -> None:
    """Each file is what was written, but its rows would be ranked twice."""
    first = parts.list_parts(corpus / where)[0]
    shutil.copy(first, first.with_name(first.name.replace("part-000000", "part-000002")))
    ran = cli("status", "--verify", "-c", corpus)
    assert ran.code == 1
    assert "have 12 duplicate rows" in " ".join(ran.out.split())


def _overwrite(column: str, part: Path) -> None:
    """Put nonsense in the place of a column's pages; the file's end stays whole."""
    found = bytearray(part.read_bytes())
    group = pq.read_metadata(part).row_group(0)
    chunks = map(group.column, range(group.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.endswith(column))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    found[start : start + chunk.total_compressed_size] = b"Z" * chunk.total_compressed_size
    part.write_bytes(found)


@pytest.mark.parametrize(
    ("where", "column"),
    [("examples", "content"), ("scores/chat", "example_id"), ("scores/chat", "logprob")],
)
def test_a_run_over_damaged_rows_ends_in_a_line(
    where: str, column: str, cli: Cli, family: Family, corpus: Path, tmp_path: Path
) -> None:
    """What is met late, among rows, is told as what is met at once; `--verify` says where."""
    _overwrite(column, parts.list_parts(corpus / where)[0])
    score = ["score", "--quiet", *family.arguments("code", "medical")]
    commands = [
        [*score, "--dry-run"],
        score,
        ["status"],
        ["sql", "top_gaps"],
        ["show", "0"],
        ["export", "--top", "3", "-o", tmp_path / "o.jsonl"],
        ["report", "-o", tmp_path / "r.html"],
    ]
    ran = [cli(*command, "-c", corpus) for command in commands]
    errors = [each.err for each in ran if each.code]
    assert errors
    assert [e for e in errors if not e.startswith("Error: ") or e.count("\n") != 1] == []
    true = ("ids start with", "no example is ranked yet")  # of what can be read
    told = [error for error in errors if not any(words in error for words in true)]
    assert [error for error in told if "curate status --verify" not in error] == []
    verified = cli("status", "--verify", "-c", corpus)
    assert (verified.code, verified.err) == (1, "")
    assert where.partition("/")[0] in verified.out
