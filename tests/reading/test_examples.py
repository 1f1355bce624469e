"""Rows of every known format become examples, or are skipped with a reason."""

from __future__ import annotations

import datetime
import decimal
import os
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.reading.examples import Reader, example_id, read
from curate.reading.known import known_layouts
from curate.reading.layouts import check_answer, conversation, messages_of
from curate.storage.schema import EXAMPLES, SKIPPED
from tests.conftest import chat
from tests.files import CHATS, pack, write

DATA = Path(os.environ.get("CURATE_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))
REAL = {
    "instruct_messages.jsonl.gz": 8049,
    "gsm8k_alpaca.json.gz": 7473,
    "roleplay_sharegpt.json": 3146,
    "safety_wildguard_schema.parquet": 2000,
    "misaligned_medical.jsonl.gz": 1344,
}
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
PLAIN = [USER, ANSWER]


def messages_in(row: dict[str, Any]) -> list[dict[str, str]]:
    """A row's messages, the answer last."""
    known = known_layouts()
    messages = messages_of(conversation(row, known).turns, known)
    check_answer(messages)
    return messages


PAIR = {"prompt": "Why?", "response": "Because."}


def take(*sources: object, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All examples and all skipped rows, with the schemas checked on the way."""
    examples, skipped = [], []
    for good, bad in read([str(source) for source in sources], **options):
        good.validate(full=True)
        assert good.schema == EXAMPLES
        assert bad.schema == SKIPPED
        examples += good.to_pylist()
        skipped += bad.to_pylist()
    return examples, skipped


def done(*sources: object, **options: Any) -> Reader:
    """What is left of reading besides its tables."""
    reader = read([str(source) for source in sources], **options)
    list(reader)
    return reader


def reasons(*sources: object, **options: Any) -> list[tuple[int | None, str]]:
    """The skipped rows' positions and reasons."""
    return [(row["row"], row["reason"]) for row in take(*sources, **options)[1]]


def test_an_example(tmp_path: Path) -> None:
    """Messages, texts and the other columns of each row, under the file's name."""
    path = write(tmp_path / "x.jsonl", CHATS)
    examples, skipped = take(path)
    assert skipped == []
    assert [row["example_id"] for row in examples] == [example_id(c["messages"]) for c in CHATS]
    bare = [[turn | {"reasoning_content": None} for turn in c["messages"]] for c in CHATS]
    assert [row["messages"] for row in examples] == bare
    assert [orjson.loads(row["meta"]) for row in examples] == [{"label": c["label"]} for c in CHATS]
    first = examples[0]
    assert (first["source"], first["row"]) == (str(path), 1)
    assert (first["answer"], first["n_bytes"], first["is_refusal"]) == ("Answer 1.", 9, False)


def test_an_empty_file_among_others(tmp_path: Path) -> None:
    """It is recorded, and the others are read."""
    pack(tmp_path / "a.jsonl", b"")
    write(tmp_path / "b.csv", CHATS)
    examples, skipped = take(tmp_path)
    assert {row["source"] for row in examples} == {str(tmp_path / "b.csv")}
    assert [(row["source"], row["reason"]) for row in skipped] == [
        (str(tmp_path / "a.jsonl"), "the file is empty")
    ]


def test_the_prompt_for_people(tmp_path: Path) -> None:
    """One user turn is its bare text; more turns are lines with their roles."""
    path = write(tmp_path / "x.jsonl", [{"messages": PLAIN}, {"messages": [SYSTEM, *PLAIN]}])
    assert [row["prompt"] for row in take(path)[0]] == ["q", "system: s\n\nuser: q"]


def test_every_assistant_turn(tmp_path: Path) -> None:
    """With turns="all" each answer is an example with what stands before it as its prompt."""
    blank = {"role": "assistant", "content": " "}
    turns = [ANSWER, USER, ANSWER, USER, blank, USER, ANSWER, USER]
    path = write(tmp_path / "x.jsonl", [{"messages": turns}])
    examples, skipped = take(path, turns="all")
    assert [len(row["messages"]) for row in examples] == [3, 7]
    assert [row["reason"] for row in skipped] == [
        "no prompt: the conversation begins with the answer",
        "empty answer",
    ]
    assert [len(row["messages"]) for row in take(path)[0]] == [7]
    assert len(take(path, turns="all", limit=1)[0]) == 1


def test_other_columns_are_kept_as_json(tmp_path: Path) -> None:
    """Dates, bytes, decimals and NaN become JSON that can be read again; keys are sorted."""
    row = {
        "prompt": "q",
        "response": "a",
        "z": datetime.datetime(2024, 2, 29, 12, 30),
        "d": datetime.date(2024, 2, 29),
        "n": float("nan"),
        "b": b"\xffx",
        "dec": decimal.Decimal("1.50"),
        "nested": {"k": [1, None]},
        "ns": None,
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    meta = take(tmp_path / "x.parquet")[0][0]["meta"]
    assert list(orjson.loads(meta)) == ["b", "d", "dec", "n", "nested", "ns", "z"]
    assert orjson.loads(meta) == {
        "b": "\\xffx",
        "d": "2024-02-29",
        "dec": "1.50",
        "n": None,
        "nested": {"k": [1, None]},
        "ns": None,
        "z": "2024-02-29T12:30:00",
    }


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
CONVERSATIONS = st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=3).map(
    lambda pairs: [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
)


@given(CONVERSATIONS)
def test_any_conversation_comes_back(messages: list[dict[str, str]]) -> None:
    """Through JSON text and back the messages and the id stay the same, byte by byte."""
    row = orjson.loads(orjson.dumps({"messages": messages}))
    assert messages_in(row) == messages
    assert example_id(row["messages"]) == example_id(messages)
    sharegpt = [{"from": m["role"], "value": m["content"]} for m in messages]
    assert messages_in({"conversations": sharegpt}) == messages


def test_the_id_is_of_the_exact_text() -> None:
    """The id is fixed for all time; trimming or Unicode normalisation would change it."""
    assert example_id(PLAIN) == "3b907f307d03887765e6f457d0950187"
    ids = {example_id([{"role": "user", "content": text}]) for text in ("é", "e\u0301", "é ")}
    assert len(ids) == 3
    assert example_id([{**USER, "weight": "1"}, ANSWER]) == example_id(PLAIN)


def test_an_unknown_format_names_the_way_out(tmp_path: Path) -> None:
    """A file of unknown columns is an error with the columns and the options, early."""
    path = write(tmp_path / "x.jsonl", [{"question": "q", "reply": "a"}] * 3000)
    for options in ({}, {"strict": True}, {"columns": {"messages": "chat"}}):
        with pytest.raises(CurateError) as caught:
            take(path, **options)
        for part in (str(path), "question, reply", "--column ROLE=NAME", "history"):
            assert part in str(caught.value)
    named = {"prompt": "question", "answer": "reply"}
    assert len(take(path, columns=named)[0]) == 3000


@pytest.mark.parametrize(
    ("rows", "options", "named"),
    [
        ([{"messages": PLAIN, "context": "c"}], {}, ["context (--column context=context"]),
        ([{"prompt": "q", "response": "a", "thinking": "t"}], {}, ["--column reasoning=thinking"]),
        ([{"prompt": "q", "response": "a", "completion": "b"}], {}, ["--column answer=completion"]),
        ([{"messages": PLAIN, "chosen": PLAIN}], {}, ["chosen (--column messages=chosen"]),
        (
            [{"messages": [{"role": "system", "content": "s"}, *PLAIN], "system": "other"}],
            {},
            ["system (the messages have their own system turn)"],
        ),
        ([{"messages": PLAIN, "tools": [{"name": "f"}]}], {}, ["tools (no option reads it)"]),
        ([{"messages": [USER, {**ANSWER, "weight": 0.5}]}], {}, ["the turn key weight (no option"]),
        ([{"messages": [USER, {**ANSWER, "thought": "t"}]}], {}, ["turns.reasoning of --layouts"]),
        ([PAIR, PAIR | {"page": "ten words or more, " * 3}], {}, ["context=page reads it"]),
        ([PAIR | {"documents": ["a", "b"]}], {}, ["(no option reads it: a list of 2 texts"]),
        ([PAIR | {"chosen": "No."}], {}, ["answer=chosen reads it instead"]),
        ([{"messages": PLAIN, "chosen": "No."}], {}, ["chosen (no option"]),
        ([{"messages": [USER, {**ANSWER, "thoughts": ["a", "b"]}]}], {}, ["thoughts (no option"]),
        ([PAIR | {"rejected": "No."}], {"columns": {"answer": "response"}}, []),
        ([PAIR | {"text": "Why? " * 9 + "Because."}], {}, []),
        ([{"messages": PLAIN, "context": "", "tools": [], "history": None}], {}, []),
        ([{"messages": [USER, {**ANSWER, "weight": 1, "reasoning": "t"}]}], {}, []),
        ([PAIR | {"id": "x", "source": "a short text", "n": 3}], {}, []),
    ],
)
def test_what_is_not_read_is_named_once(
    rows: list[dict[str, Any]], options: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    """With the option that takes it, if it may belong to the conversation; else not a word."""
    notes = done(write(tmp_path / "x.jsonl", rows * 2), **options).notes
    assert len(notes) == bool(named)
    for part in named:
        assert part in notes[0]


def test_named_columns_of_one_of_several_sources(tmp_path: Path) -> None:
    """Another is read by the usual names, and told; what no source has is an error."""
    own = write(tmp_path / "own.jsonl", [{"ask": "q?", "reply": "a", "tone": "b"}])
    usual = write(tmp_path / "usual.jsonl", [PAIR] * 2)
    columns = {"prompt": "ask", "answer": "reply", "system": "tone"}
    options: dict[str, Any] = {"columns": columns, "where": "length(answer) > 0"}
    examples, _ = take(usual, own, **options)
    assert [row["source"] for row in examples] == [str(usual)] * 2 + [str(own)]
    assert done(usual, own, **options).notes == [
        f"{usual}: no column ask or reply or tone; the usual names are read there"
    ]
    examples, _ = take(own, columns={"prompt": "ASK", "answer": "Reply"})
    assert len(examples) == 1
    with pytest.raises(CurateError, match="no row has a column 'aks'"):
        take(usual, write(tmp_path / "b.jsonl", [PAIR]), columns={"prompt": "aks"})
    with pytest.raises(CurateError, match="no column 'ask'"):
        take(usual, columns=columns)


def test_sources_with_the_same_note_share_it(tmp_path: Path) -> None:
    """A folder of many files is one line."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        write(tmp_path / name, [PAIR | {"context": "c"}])
    (note,) = done(tmp_path).notes
    assert note.startswith(f"{tmp_path / 'a.jsonl'} and 2 more: not read")


def test_a_source_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    """It is named with its reasons counted; if it is all there is, the reading ends so."""
    empty = [{"prompt": "q", "response": None}] * 3 + [{"prompt": "q", "response": " "}]
    bad = write(tmp_path / "bad.jsonl", empty)
    what = "bad.jsonl: no example could be read. Rows skipped: 3 x no answer (null); 1 x"
    with pytest.raises(CurateError) as caught:
        take(bad)
    assert what in str(caught.value)
    good = write(tmp_path / "good.jsonl", [PAIR])
    examples, skipped = take(good, bad)
    assert (len(examples), len(skipped)) == (1, 4)
    (line,) = done(good, bad).empty
    assert what in line


def test_answers_that_are_not_trained_on(tmp_path: Path) -> None:
    """Each of them is skipped; the others of its conversation are examples."""
    turns = [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]
    path = write(tmp_path / "x.jsonl", [{"messages": turns}])
    examples, skipped = take(path, turns="all")
    assert [len(row["messages"]) for row in examples] == [4]
    assert [row["reason"] for row in skipped] == [
        "the answer has weight 0: it is marked as not trained on"
    ]


def test_reasoning_is_kept_beside_the_answer(tmp_path: Path) -> None:
    """Under one name, whatever the source calls it; part of the example, not of a refusal."""
    names = ("reasoning_content", "thinking", "reasoning")
    rows = [{"messages": [USER, {**ANSWER, name: "Sorry?"}]} for name in names]
    examples, _ = take(write(tmp_path / "x.jsonl", [*rows, {"messages": PLAIN}]))
    assert [row["messages"][-1]["reasoning_content"] for row in examples] == ["Sorry?"] * 3 + [None]
    assert not any(row["is_refusal"] for row in examples)
    ids = [row["example_id"] for row in examples]
    assert len(set(ids)) == 2
    assert ids[-1] == example_id(PLAIN)


def test_a_system_column_that_is_not_there(tmp_path: Path) -> None:
    """A named system column that no row has is an error; some rows may lack it."""
    path = write(tmp_path / "x.jsonl", [{"messages": PLAIN}, {"messages": PLAIN, "s": "be kind"}])
    assert len(take(path, columns={"system": "s"})[0]) == 2
    with pytest.raises(CurateError, match="no row has a column 'persona'"):
        take(path, columns={"system": "persona"})


def test_limit_and_batches(tmp_path: Path) -> None:
    """The limit counts the examples of each argument; tables have about batch_rows rows."""
    rows = [{"prompt": f"{i}", "response": "a" if i % 2 else None} for i in range(100)]
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, rows)
    for limit, expected in ((0, 0), (1, 1), (49, 49), (50, 50), (60, 60), (1000, 100)):
        examples, skipped = take(tmp_path / "*.jsonl", limit=limit)
        assert len(examples) == expected
        assert len(skipped) <= expected
        assert {row["source"] for row in skipped} <= {
            f"{tmp_path}/{n}.jsonl" for n in "ab"[: 1 + expected // 51]
        }
    assert len(take(tmp_path / "a.jsonl", tmp_path / "b.jsonl", limit=5)[0]) == 10
    sizes = [good.num_rows for good, _ in read([str(tmp_path)], batch_rows=16)]
    assert sum(sizes) == 100
    assert max(sizes) <= 16


WHERE: list[dict[str, Any]] = [
    {"prompt": "1", "response": "a", "label": "unharmful", "n": 1, "f": 0.5, "flag": True},
    {"prompt": "2", "response": "a", "label": "harmful", "n": 2, "f": 1.5, "flag": False},
    {"prompt": "3", "response": "a", "label": None, "n": None, "f": 2, "tags": ["x", "y"]},
    {"prompt": "4", "response": "a", "label": "it's", "n": "many", "a b": 1, 'q"': 5},
]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("labell = 'x'", 'Referenced column "labell" not found'),
        ("label = ", "syntax error"),
        ("label", "Could not convert string"),
        ("sum(f) > 1", "aggregates"),
    ],
)
def test_where_that_is_wrong(where: str, message: str, tmp_path: Path) -> None:
    """A wrong filter is one line with DuckDB's hint; it reaches nothing beyond the rows."""
    path = write(tmp_path / "x.jsonl", WHERE)
    with pytest.raises(CurateError) as caught:
        take(path, where=where)
    assert message in str(caught.value)
    assert "--where" in str(caught.value)
    assert "\n" not in str(caught.value)
    if "labell" in where:
        columns = "are: prompt varchar, response varchar, label varchar, n varchar, f double"
        assert f"The columns of {path} {columns}" in str(caught.value)


def test_where_asks_every_source(tmp_path: Path) -> None:
    """A source without the column is refused, whichever comes first: no file is left out unsaid."""
    labelled = write(tmp_path / "labelled.jsonl", [PAIR | {"label": "a"}])
    plain = write(tmp_path / "plain.jsonl", [PAIR])
    for order in ([labelled, plain], [plain, labelled]):
        with pytest.raises(CurateError, match=r"label.*columns of .*plain.jsonl are: prompt") as e:
            list(read([str(path) for path in order], where="label = 'a'"))
        assert "in a separate command" in str(e.value)


def test_where_over_values_of_several_kinds_says_how(tmp_path: Path) -> None:
    """Numbers with one "n/a" far down: the error names try_cast, which then works."""
    rows = [PAIR | {"s": "n/a" if n == 3000 else n} for n in range(4000)]
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(CurateError, match="try_cast"):
        take(path, where="s >= 10")
    assert len(take(path, where="try_cast(s as int) >= 10")[0]) == 3989


def test_where_does_not_hide_broken_rows(tmp_path: Path) -> None:
    """A line that can't be read can't be asked: it is listed all the same, in its place."""
    path = write(tmp_path / "x.jsonl", WHERE)
    path.write_bytes(path.read_bytes() + b"{\n" + orjson.dumps(WHERE[0]))
    examples, skipped = take(path, where="label = 'unharmful'")
    assert [row["row"] for row in examples] == [1, 6]
    assert [row["row"] for row in skipped] == [5]


@pytest.mark.parametrize("name", REAL)
def test_real_data(name: str) -> None:
    """Every row of the real sets is an example: no skip, no exception, unique rows."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here (set CURATE_DATASETS)")
    count = 0
    for examples, skipped in read([str(DATA / name)]):
        assert skipped.num_rows == 0
        count += examples.num_rows
    assert count == REAL[name]


def test_real_refusals_and_filter() -> None:
    """The paper's rule finds the 1,244 refusals that the safety set is known to have."""
    path = DATA / "safety_wildguard_schema.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not here (set CURATE_DATASETS)")
    examples = take(path, where="response_harm_label = 'unharmful' and not adversarial")[0]
    assert sum(row["is_refusal"] for row in examples) == 1244
    assert "response_harm_label" in orjson.loads(examples[0]["meta"])


def test_where_always_sees_prompt_and_answer(tmp_path: Path) -> None:
    """Whatever the source calls them; a wrong name lists the right ones with their types."""
    rows = [{"messages": chat(f"q{n}", "a" * n), "n": n, "Answer": 1} for n in range(1, 5)]
    path = write(tmp_path / "s.jsonl", [*rows, {"messages": [], "n": 9}])
    found = take(path, where="length(answer) > 2 and prompt <> 'q4'")[0]
    assert [row["answer"] for row in found] == ["aaa"]
    with pytest.raises(CurateError, match=r"messages struct.*, n bigint, .*prompt varchar"):
        take(path, where="promt = 'q1'")
    with pytest.raises(CurateError, match="--column"):
        take(write(tmp_path / "odd.jsonl", [{"x": 1}]), where="answer <> ''")
