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


@pytest.fixture(scope="module")
def read() -> dict[str, tuple[list[list[dict[str, str]]], list[bool], int]]:
    """Each file's conversations, whether their answers are refusals, and its skipped rows."""
    found = {}
    for name in FILES:
        tables = list(examples.read([str(DATA / "examples" / name)]))
        messages = [row for table, _ in tables for row in table["messages"].to_pylist()]
        refused = [flag for table, _ in tables for flag in table["is_refusal"].to_pylist()]
        found[name] = messages, refused, sum(skipped.num_rows for _, skipped in tables)
    return found


def test_the_table_names_the_files_that_are_there() -> None:
    """No more and no fewer, and its last row is the sum of the others."""
    assert sorted(FILES) == sorted(path.name for path in (DATA / "examples").iterdir())
    sums = [sum(column) for column in zip(*(TABLE[name] for name in FILES), strict=True)]
    assert TABLE["all"] == sums


@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_of_the_table(
    name: str, read: dict[str, tuple[list[list[dict[str, str]]], list[bool], int]]
) -> None:
    """Rows, usable rows, multi-turn conversations and refusals, in each file."""
    messages, refused, skipped = read[name]
    turns = [sum(m["role"] == "user" for m in one) for one in messages]
    counted = [len(messages) + skipped, len(messages), sum(n > 1 for n in turns), sum(refused)]
    assert counted == TABLE[name][:4]


def test_the_narrow_rows_are_forty_and_apart_from_the_examples(
    read: dict[str, tuple[list[list[dict[str, str]]], list[bool], int]],
) -> None:
    """None is, in its question or answer, one of the examples."""
    narrow = [
        row
        for table, _ in examples.read([str(DATA / "narrow.jsonl")])
        for row in table["messages"].to_pylist()
    ]
    assert len({str(row) for row in narrow}) == 40
    texts = {m["content"] for found, _, _ in read.values() for one in found for m in one}
    assert not texts & {m["content"] for row in narrow for m in row[1:]}
