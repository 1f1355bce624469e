"""A customer's rows: every field of them is kept, or the export stops, or a line says so."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export.target import Target
from curate.reading.narrow import read
from curate.selection.recipe import Recipe
from tests.corpora import corpus
from tests.files import write

ASK = {"role": "user", "content": "q"}
TELL = {"role": "assistant", "content": "a"}
PLAIN = [ASK, TELL]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [
    ASK,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "42", "tool_call_id": "1"},
    TELL,
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Twelve safe examples; only read."""
    nlls = {"base": [1.0] * 12, "bad": [20.0 - n for n in range(12)]}
    return corpus(tmp_path_factory.mktemp("made") / "c", [f"answer {n}" for n in range(12)], nlls)


def mixed(made: Corpus, path: Path, out: str = "mix.jsonl", **target: Any) -> dict[str, Any]:
    """The manifest of a mix of one safe row with these narrow ones, and beside it the rows."""
    to = path.parent / out
    record = curate.export(made, to, Recipe(top=1, into=str(path)), Target(**target))
    if to.suffix == ".jsonl":
        rows = [json.loads(line) for line in to.open(encoding="utf-8")]
    else:
        rows = pq.read_table(to).to_pylist()
    safe = {entry["line"] for entry in record["safe"]}
    return record | {
        "rows": [row for line, row in enumerate(rows, 1) if line not in safe],
        "safe_rows": [row for line, row in enumerate(rows, 1) if line in safe],
    }


def test_columns_of_a_narrow_set_can_be_named(made: Corpus, tmp_path: Path) -> None:
    """As those of a pool, also through a recipe; a name that is in no row is refused."""
    row = {"ask": "q", "page": "p", "reply": "a", "past": [["q", "a"]], "id": 1}
    path = write(tmp_path / "x.jsonl", [row])
    columns = {"prompt": "ask", "answer": "reply", "context": "Page", "history": "past"}
    asked = {"role": "user", "content": "q\np"}
    (found,) = read(str(path), columns).rows
    assert (found.messages, found.others) == ([*PLAIN, asked, TELL], {"id": 1})
    recipe = Recipe(top=1, into=str(path), columns=columns)
    record = curate.export(made, tmp_path / "mix.jsonl", recipe)
    assert record["narrow"]["rows"] == 1
    assert record["recipe"]["columns"] == columns
    with pytest.raises(CurateError, match="no row has a column 'rules'"):
        read(str(path), columns | {"system": "rules"})
    with pytest.raises(CurateError, match="add --into NARROW"):
        curate.export(made, tmp_path / "no.jsonl", Recipe(top=1, columns=columns))


def test_every_shape_of_turns_is_kept(tmp_path: Path) -> None:
    """Pairs, lists in an object, other names; a call of nulls is none."""
    nulls = {"function_call": {"name": None, "arguments": None}}
    rows = [
        {"conversation": [{"input": "q", "output": "a"}]},
        {"messages": {"from": ["human", "gpt"], "value": ["q", "a"]}},
        {"instruction": "q", "response": "a"},
    ]
    narrow = read(str(write(tmp_path / "x.jsonl", rows)))
    assert [row.messages for row in narrow.rows] == [PLAIN] * 3
    path = write(tmp_path / "y.jsonl", [{"messages": [ASK | nulls, TELL | nulls | {"weight": 0}]}])
    (row,) = read(str(path)).rows
    assert row.messages == [
        ASK | {"function_call": None},
        TELL | {"function_call": None, "weight": 0},
    ]


def test_order_and_duplicates_are_kept(tmp_path: Path) -> None:
    """Rows of several formats, one twice, in one file."""
    rows = [{"messages": PLAIN}, {"prompt": "q", "response": "a"}, {"messages": PLAIN}]
    narrow = read(str(write(tmp_path / "x.jsonl", rows)))
    assert [row.messages for row in narrow.rows] == [PLAIN] * 3
    assert [row.place.rpartition(":")[2] for row in narrow.rows] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not valid JSON"),
        (b'{"messages": []}', "no messages"),
        (b'{"prompt": "q"}', "unknown format"),
        (b'{"prompt": "q", "response": " "}', "empty answer"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "no prompt"),
        (b'{"messages": [{"role": "wizard", "content": "q"}]}', "unknown role 'wizard'"),
        (b'{"prompt": "q", "response": "a", "n": "text"}', "'n' is of another type"),
    ],
)
def test_a_broken_row_stops_with_its_place(tmp_path: Path, line: bytes, message: str) -> None:
    """File and line of the first row that can't be kept."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "q", "response": "a", "n": 1}\n' + line)
    with pytest.raises(CurateError, match=rf"x\.jsonl:2: .*{message}") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    """A narrow set has rows."""
    (tmp_path / "x.jsonl").write_bytes(b"")
    with pytest.raises(CurateError, match="is empty"):
        read(str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("out", ["mix.jsonl", "mix.parquet"])
def test_columns_and_keys_stay_and_are_null_in_safe_rows(
    made: Corpus, tmp_path: Path, out: str
) -> None:
    """What stands beside the conversation, or on one turn alone, in every row's schema."""
    weighted = [ASK, TELL | {"weight": 0}, ASK, TELL]
    rows = [{"messages": PLAIN, "id": 7, "tags": ["x"]}, {"messages": weighted, "id": None}]
    made = mixed(made, write(tmp_path / "x.jsonl", rows), out)
    first, second = made["rows"]
    assert (first["id"], first["tags"]) == (7, ["x"])
    assert (second["id"], second["tags"]) == (None, None)
    assert [turn["weight"] for turn in second["messages"]] == [None, 0, None, None]
    (safe,) = made["safe_rows"]
    assert (safe["id"], safe["tags"]) == (None, None)
    assert all(turn["weight"] is None for turn in safe["messages"])
    assert "kept, and null in selected rows: id, tags, the turns' weight" in made["notes"]


def test_turns_after_the_last_answer_stay(made: Corpus, tmp_path: Path) -> None:
    """In `messages`; a format that has no place for them says so."""
    path = write(tmp_path / "x.jsonl", [{"messages": [*PLAIN, ASK]}])
    assert mixed(made, path)["rows"][0]["messages"] == [*PLAIN, ASK]
    for name in ("prompt-completion", "alpaca", "openai"):
        with pytest.raises(CurateError, match=r"x\.jsonl:1: .*(after the last answer|alternate)"):
            curate.export(
                made, tmp_path / "no.jsonl", Recipe(top=11, into=str(path)), Target(format=name)
            )
        assert not (tmp_path / "no.jsonl").exists()


def test_tool_turns_are_kept_where_there_is_a_place(made: Corpus, tmp_path: Path) -> None:
    """Calls, their ids and a content of null."""
    path = write(tmp_path / "x.jsonl", [{"messages": TOOLS}])
    (row,) = mixed(made, path)["rows"]
    kept = [{k: v for k, v in turn.items() if v is not None} for turn in row["messages"]]
    assert kept == [{k: v for k, v in turn.items() if v is not None} for turn in TOOLS]
    with pytest.raises(CurateError, match=r"x\.jsonl:1: a turn with tool calls"):
        mixed(made, path, "no.jsonl", format="sharegpt")


TOOL_SETS: Any = [[{"name": "f", "parameters": {"x": {}}}], [{"name": "g", "parameters": {"y": 1}}]]


@pytest.mark.parametrize("name", ["messages", "openai"])
def test_objects_with_other_keys_stay_in_json_lines(
    made: Corpus, tmp_path: Path, name: str
) -> None:
    """Columns' and turns' objects, as they came."""
    calls = [[{"id": "1", "function": {"name": "f", "arguments": {key: 1}}}] for key in "ab"]
    rows = [
        {"messages": [ASK, TELL | {"tool_calls": call}], "tools": tools}
        for call, tools in zip(calls, TOOL_SETS, strict=True)
    ] * 5
    record = mixed(made, write(tmp_path / "x.jsonl", rows), format=name)
    assert [row["tools"] for row in record["rows"]] == TOOL_SETS * 5
    assert [row["messages"][1]["tool_calls"] for row in record["rows"]] == calls * 5


@pytest.mark.parametrize(("out", "trainer"), [("mix.parquet", None), ("mix", "trl")])
def test_objects_with_other_keys_become_text(
    made: Corpus, tmp_path: Path, out: str, trainer: str | None
) -> None:
    """Where readers would fill them up with nulls; a line says so. In turns they are refused."""
    path = write(tmp_path / "x.jsonl", [{"messages": PLAIN, "tools": each} for each in TOOL_SETS])
    target, to = Target(trainer=trainer, format="messages"), tmp_path / out
    record = curate.export(made, to, Recipe(top=1, into=str(path)), target)
    rows = read(str(to / "train.jsonl" if trainer else to)).rows
    texts = [row.others["tools"] for row in rows]
    assert [json.loads(text) for text in texts if text] == TOOL_SETS
    assert any("'tools'" in note and "JSON text" in note for note in record["notes"])
    turns = [[ASK, TELL | {"args": {"a": 1}}], [ASK, TELL | {"args": {"b": 1}}]]
    path = write(tmp_path / "y.jsonl", [{"messages": turn} for turn in turns])
    with pytest.raises(CurateError, match=r"y\.jsonl: .*'args' holds objects whose keys differ"):
        curate.export(made, tmp_path / f"no{to.suffix}", Recipe(top=1, into=str(path)), target)


def test_what_json_does_not_know_is_named(made: Corpus, tmp_path: Path) -> None:
    """Dates become text and NaN null, each with a line; bytes are refused."""
    row = {"messages": PLAIN, "day": datetime.date(2024, 7, 26), "x": float("nan")}
    record = mixed(made, write(tmp_path / "x.parquet", [row]))
    assert record["rows"][0]["day"] == "2024-07-26"
    assert record["rows"][0]["x"] is None
    assert sum("'day'" in note or "'x'" in note for note in record["notes"]) == 2
    path = write(tmp_path / "y.parquet", [{"messages": PLAIN, "raw": b"\x00\xff"}])
    with pytest.raises(CurateError, match=r"y\.parquet:1: .*'raw' holds bytes"):
        read(str(path))


@pytest.mark.parametrize(
    ("column", "target"),
    [
        ("text", {}),
        ("chosen", {}),
        ("input", {"format": "alpaca"}),
        ("completion", {"format": "prompt-completion"}),
    ],
)
def test_a_column_that_a_reader_would_take_for_another_is_refused(
    made: Corpus, tmp_path: Path, column: str, target: dict[str, Any]
) -> None:
    """A customer's `text` beside `messages` is no conversation, but trainers read it as one."""
    path = write(tmp_path / "x.jsonl", [{"messages": PLAIN, column: "x"}])
    with pytest.raises(CurateError, match=f"column '{column}' isn't part"):
        mixed(made, path, "no.jsonl", **target)


def test_alpaca_stays_alpaca(made: Corpus, tmp_path: Path) -> None:
    """Instruction and input stand apart where the format can hold them apart."""
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "split": "train"}
    path = write(tmp_path / "x.json", [row])
    (kept,) = mixed(made, path, format="alpaca")["rows"]
    assert {name: kept[name] for name in row} == row
    (joined,) = mixed(made, path, "m.jsonl")["rows"]
    assert joined["messages"][0]["content"] == "Add.\n1 2"


@pytest.mark.parametrize("out", ["mix.jsonl", "mix.parquet"])
def test_an_alpaca_input_in_parts_is_text(made: Corpus, tmp_path: Path, out: str) -> None:
    """One schema in every row, and a note."""
    parts = [{"type": "text", "text": "1 "}, "2"]
    row = {"instruction": "Add.", "input": parts, "output": "3"}
    record = mixed(made, write(tmp_path / "x.json", [row]), out, format="alpaca")
    assert [kept["input"] for kept in record["rows"]] == ["1 2"]
    assert "contents given as lists of text parts are written as plain text" in record["notes"]


def test_a_number_that_parquet_rounds_is_named(made: Corpus, tmp_path: Path) -> None:
    """Its column holds numbers of two kinds, which JSON Lines keeps as they are."""
    numbers = [1234567890123456789, 0.5]
    rows = [{"prompt": "q", "response": "a", "n": number} for number in numbers]
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(CurateError, match=r"column 'n' .*: write a \.jsonl") as caught:
        mixed(made, path, "mix.parquet")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mix.parquet").exists()
    assert [row["n"] for row in mixed(made, path)["rows"]] == numbers


def test_the_hash_is_of_the_rows(tmp_path: Path) -> None:
    """It changes with any field, and not with the compression."""
    row = {"messages": PLAIN, "id": 1}
    one = read(str(write(tmp_path / "a.jsonl", [row]))).sha256
    assert read(str(write(tmp_path / "b.jsonl.gz", [row]))).sha256 == one
    assert read(str(write(tmp_path / "c.jsonl", [row | {"id": 2}]))).sha256 != one
    assert orjson.loads((tmp_path / "a.jsonl").read_bytes()) == row
