"""The demo's data are what data/README.md says, read here without any of curate's own readers."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).parents[2] / "data"
EXAMPLES = DATA / "examples"
REFUSALS = ("sorry", "apologize", "cannot", "can't", "i'm unable", "i am unable")
COUNTS = ("rows", "usable", "multi-turn", "refusals", "exact duplicates", "near duplicates")

Messages = tuple[tuple[str, str], ...]


def lines(text: str) -> list[dict[str, Any]]:
    """Return the objects of JSON Lines; an empty or broken line raises."""
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def rows(path: Path) -> list[dict[str, Any]]:
    """Return a file's rows as they stand, parsed by plain libraries only."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            return lines(stream.read().decode())
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    return list(json.loads(text)) if path.suffix == ".json" else lines(text)


def messages(row: dict[str, Any]) -> Messages:
    """Return a row's conversation as (role, content) pairs, whatever its format."""
    roles = {"human": "user", "gpt": "assistant"}
    if "messages" in row:
        return tuple((m["role"], m["content"]) for m in row["messages"])
    if "conversations" in row:
        return tuple((roles.get(m["from"], m["from"]), m["value"]) for m in row["conversations"])
    if "instruction" in row:
        prompt = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        return ("user", prompt), ("assistant", row["output"])
    answer = row["completion"] if "completion" in row else row["response"]
    return ("user", row["prompt"]), ("assistant", answer or "")


def usable(conversation: Messages) -> bool:
    """Say whether a conversation ends with an answer and has no tool turn."""
    role, answer = conversation[-1]
    return role == "assistant" and bool(answer) and all(r != "tool" for r, _ in conversation)


def is_refusal(conversation: Messages) -> bool:
    """Apply the paper's rule, with its later phrases, to the answer's first ten words."""
    start = " ".join(conversation[-1][1].lower().replace("\u2019", "'").split()[:10])
    return any(phrase in start for phrase in REFUSALS)


def turns(conversation: Messages) -> int:
    """Count the user's turns."""
    return sum(role == "user" for role, _ in conversation)


@cache
def words(conversation: Messages) -> frozenset[tuple[str, ...]]:
    """Return the conversation's runs of three words, without case and punctuation."""
    found = re.findall(r"\w+", " ".join(content for _, content in conversation).lower())
    return frozenset(zip(found, found[1:], found[2:], strict=False))


def near(a: Messages, b: Messages) -> bool:
    """Say whether two conversations share most of their runs of three words."""
    x, y = words(a), words(b)
    return a != b and 2 * len(x & y) > len(x | y)


@cache
def table() -> dict[str, dict[str, str]]:
    """Return the README's table: its cells by file name and heading."""
    text = (DATA / "README.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def files() -> list[str]:
    """Return the example files in the README's order, the last row (the sum) left out."""
    return [name for name in table() if name != "all"]


@cache
def conversations() -> dict[str, list[Messages]]:
    """Return the usable conversations of each example file."""
    return {
        name: [m for m in map(messages, rows(EXAMPLES / name)) if usable(m)] for name in files()
    }


@cache
def counted() -> dict[str, dict[str, int]]:
    """Count in each file what the README's table states; a copy counts where it comes second."""
    seen: list[Messages] = []
    result = {}
    for name, found in conversations().items():
        sums = [len(rows(EXAMPLES / name)), len(found), sum(turns(m) > 1 for m in found)]
        sums += [sum(map(is_refusal, found)), 0, 0]
        for m in found:
            if m in seen:
                sums[4] += 1
            else:
                sums[5] += any(near(m, other) for other in seen)
                seen.append(m)
        result[name] = dict(zip(COUNTS, sums, strict=True))
    return result


def test_readme_lists_every_file() -> None:
    """The README's table names the files that are there, no more and no fewer."""
    assert sorted(files()) == sorted(path.name for path in EXAMPLES.iterdir())


@pytest.mark.parametrize("name", files())
def test_counts_are_those_of_the_readme(name: str) -> None:
    """Rows, refusals, duplicates and skipped rows are as many as the table states."""
    assert counted()[name] == {count: int(table()[name][count]) for count in COUNTS}


def test_the_sums_are_those_of_the_readme() -> None:
    """The table's last row is the sum of the others."""
    for count in COUNTS:
        assert sum(c[count] for c in counted().values()) == int(table()["all"][count])


def test_numbers_in_the_readme_text_hold() -> None:
    """What the README says outside its table is counted here too."""
    found = [m for part in conversations().values() for m in part]
    alpaca = rows(EXAMPLES / "homework_alpaca.json")
    text = " ".join((DATA / "README.md").read_text(encoding="utf-8").split())
    assert f"So {len(set(found))} different examples" in text
    assert f"{sum(m[0][0] == 'system' for m in found)} rows have a system prompt" in text
    assert f"{sum(bool(row['input']) for row in alpaca)} rows have an `input`" in text
    for count, title in zip(COUNTS[3:], ("Refusals", "Exact dup", "Near dup"), strict=True):
        planted = re.search(rf"\*\*{title}[a-z]* \((\d+)\)\*\*", text)
        assert planted and planted[1] == table()["all"][count]


def test_the_demo_is_large_and_varied_enough() -> None:
    """There are 220 examples or more, with copies, refusals, long and multi-turn answers."""
    found = [m for part in conversations().values() for m in part]
    total = {count: sum(c[count] for c in counted().values()) for count in COUNTS}
    assert len(set(found)) >= 220
    assert total["exact duplicates"] >= 5
    assert total["near duplicates"] >= 5
    assert total["rows"] > total["usable"]
    assert sum(len(m[-1][1].split()) >= 200 for m in found) >= 4
    assert any("\u2019" in m[-1][1] for m in found if is_refusal(m))


def test_the_harm_labels_let_a_filter_have_an_effect() -> None:
    """Some answers are labelled harmful, and rows without an answer have no label."""
    found = rows(EXAMPLES / "safety_prompt_response.csv")
    labels = [row["response_harm_label"] for row in found]
    assert {label: labels.count(label) for label in set(labels)} == {
        "unharmful": 57,
        "harmful": 4,
        "": 4,
    }
    assert all(bool(row["response"]) == bool(row["response_harm_label"]) for row in found)


def test_no_two_questions_are_equal_by_mistake() -> None:
    """Two rows with one question are planted copies: the whole conversation is equal or near."""
    found = {m for part in conversations().values() for m in part}
    for a, b in itertools.combinations(found, 2):
        if a[:-1] == b[:-1]:
            assert near(a, b), a[0]


def test_narrow_has_forty_rows_in_one_form() -> None:
    """Each of the 40 narrow rows has the shop's system prompt, a question and an answer."""
    found = [messages(row) for row in rows(DATA / "narrow.jsonl")]
    assert len(set(found)) == len(found) == 40
    assert len({m[0] for m in found}) == 1
    for m in found:
        assert [role for role, _ in m] == ["system", *["user", "assistant"] * turns(m)]
    assert not any(near(a, b) for a, b in itertools.combinations([m[1:] for m in found], 2))


def test_narrow_does_not_overlap_with_the_examples() -> None:
    """No question or answer of the narrow set is, or nearly is, one of the examples'."""
    general = [m for part in conversations().values() for m in part]
    texts = {content for m in general for _, content in m}
    for m in (messages(row)[1:] for row in rows(DATA / "narrow.jsonl")):
        assert not texts & {content for _, content in m}
        assert not any(near(m, other) for other in general)


def test_texts_are_clean() -> None:
    """No text is empty, has outer white space, or holds characters that are broken or invisible."""
    narrow = [messages(row) for row in rows(DATA / "narrow.jsonl")]
    for m in itertools.chain(narrow, *conversations().values()):
        for _, content in m:
            assert content and content == content.strip()
            assert "\ufffd" not in content
            assert all(c.isprintable() or c == "\n" for c in content)


def test_the_data_are_small() -> None:
    """Examples and narrow set together stay far below what a wheel should carry."""
    paths = [*EXAMPLES.iterdir(), DATA / "narrow.jsonl", DATA / "README.md"]
    assert sum(path.stat().st_size for path in paths) < 400_000
