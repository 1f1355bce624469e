"""The demo's data are what data/README.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.reading import examples

DATA = Path(__file__).parents[2] / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")
# A row of the table: file, form, rows, usable, multi-turn, refusals, exact and near duplicates.
TABLE = {
    cells[0].strip("` "): [int(cell) for cell in cells[2:]]
    for line in README.splitlines()
    if len(cells := line.strip("|").split("|")) == 8 and cells[2].strip().isdigit()
}
FILES = [name for name in TABLE if name != "all"]


Conversation = list[dict[str, str]]


def read(path: Path) -> tuple[list[Conversation], int, int]:
    """The conversations of a file or folder, how many are refusals, how many rows are skipped."""
    tables = list(examples.read([str(path)]))
    found = [row for table, _ in tables for row in table["messages"].to_pylist()]
    refusals = sum(flag for table, _ in tables for flag in table["is_refusal"].to_pylist())
    return found, refusals, sum(skipped.num_rows for _, skipped in tables)


def test_the_table_names_the_files_that_are_there() -> None:
    """No more and no fewer, and its last row is the sum of the others."""
    assert sorted(FILES) == sorted(path.name for path in (DATA / "examples").iterdir())
    sums = [sum(column) for column in zip(*(TABLE[name] for name in FILES), strict=True)]
    assert TABLE["all"] == sums


@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_of_the_table(name: str) -> None:
    """Rows, usable rows, multi-turn conversations and refusals, in each file."""
    found, refusals, skipped = read(DATA / "examples" / name)
    turns = [sum(m["role"] == "user" for m in one) for one in found]
    counted = [len(found) + skipped, len(found), sum(n > 1 for n in turns), refusals]
    assert counted == TABLE[name][:4]


def test_the_narrow_rows_are_forty_and_apart_from_the_examples() -> None:
    """None is, in its question or answer, one of the examples."""
    narrow, general = read(DATA / "narrow.jsonl")[0], read(DATA / "examples")[0]
    assert len({str(row) for row in narrow}) == 40
    texts = {m["content"] for one in general for m in one}
    assert not texts & {m["content"] for row in narrow for m in row[1:]}
