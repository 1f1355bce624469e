"""`--where` sees a source's own types: which rows it keeps, and what it says where it can't."""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.reading.parquet import parquet_rows
from curate.reading.where import Columns, RowFilter

DAY = datetime.date(2024, 5, 1)
ROWS: list[dict[str, Any]] = [
    {
        "tags": ["safe", "short"],
        "messages": [{"role": "user", "content": "Hi."}] * 6,
        "category": {"violence": True, "weapons, drugs": False},
        "score": 1,
        "day": DAY,
    },
    {
        "tags": ["unsafe"],
        "messages": [{"role": "user", "content": "Ho."}] * 2,
        "category": {"violence": False, "weapons, drugs": True},
        "score": 0.25,
        "day": datetime.date(2023, 5, 1),
    },
    {"tags": None, "messages": [], "category": None, "score": None, "day": None},
]


def kept(rows: list[dict[str, Any]], where: str) -> list[int]:
    """The indices of the rows for which a condition is true."""
    return [at for at, _ in RowFilter(where).rows("the source", enumerate(rows))]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("list_contains(tags, 'safe')", [0]),
        ("'unsafe' in tags", [1]),
        ("tags[1] = 'safe' and len(tags) = 2", [0]),
        ("len(messages) > 4", [0]),
        ("messages[2].content = 'Ho.'", [1]),
        ("len(list_filter(messages, lambda m: m.role = 'user')) = 2", [1]),
        ("category.violence", [0]),
        ('category."weapons, drugs"', [1]),
        ("category['violence'] is null", [2]),
        ("category->>'violence' = 'true'", [0]),
        ("score > 0.5", [0]),
        ("day >= date '2024-01-01'", [0]),
        ("year(day) = 2023", [1]),
    ],
)
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_values_keep_their_types(
    where: str, expected: list[int], kind: str, tmp_path: Path
) -> None:
    """Lists are lists, objects are structs, numbers numbers and dates dates."""
    rows = ROWS
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
        rows = [row for _, row in parquet_rows(tmp_path / "x.parquet") if isinstance(row, dict)]
    assert kept(rows, where) == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("LABEL <> 'harmful' -- a comment", [0, 2]),
        ("label is null or label = 'it''s'", [2, 3]),
        ("n = '2' or n = 'many'", [1, 2]),
        ('"a b" = 1 and "q""" = 5', [2]),
        ("COLUMNS('lab.*') = 'harmful'", [1]),
    ],
)
def test_names_are_those_of_sql(where: str, expected: list[int]) -> None:
    """Case is the same, odd names are quoted, and a column that a row lacks is NULL."""
    rows = [
        {"label": "unharmful", "n": 1},
        {"label": "harmful", "n": 2},
        {"label": "it's", "n": "many", "a b": 1, 'q"': 5},
        {"label": None},
    ]
    assert kept(rows, where) == expected


def test_only_what_differs_is_json() -> None:
    """A turn's content that is now a text, now parts, is JSON; the turns stay a list of structs."""
    parts = [{"type": "text", "text": "Look."}]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Look."}]},
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A."}]},
    ]
    assert kept(rows, "len(messages) = 2") == [1]
    assert kept(rows, "messages[1].role = 'user'") == [0, 1]
    assert kept(rows, "messages[1].content->>'$' = 'Look.'") == [0]
    assert kept(rows, "messages[1].content->>'$[0].text' = 'Look.'") == [1]
    with pytest.raises(CurateError, match=r"is JSON: compare its text, COLUMN->>'\$'"):
        kept(rows, "messages[1].content = 'Look.'")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int64(), [1, None]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, None], pa.bool_(), [True, None]),
        ([None], pa.null(), [None]),
        ([True, 1], pa.string(), ["true", "1"]),
        (["x", 1], pa.string(), ["x", "1"]),
        ([2**70], pa.string(), [str(2**70)]),
        ([[1], [2.5], None], pa.list_(pa.float64()), [[1.0], [2.5], None]),
        ([[("k", 1)], []], pa.map_(pa.string(), pa.int64()), [[("k", 1)], []]),
        ([[1], {"b": 1, "a": "\u00e9"}, "x"], pa.json_(), ["[1]", '{"a":"é","b":1}', '"x"']),
        ([{"a": 1, "A": 2}], pa.json_(), ['{"A":2,"a":1}']),
        ([b"\xff"], pa.string(), ["\ufffd"]),
        ([DAY], pa.date32(), [DAY]),
    ],
)
def test_types(values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    """Values of one kind keep it, mixed scalars are text, what differs otherwise is JSON."""
    column = Columns().array(values, ("x",))
    column.validate(full=True)
    assert column.type == kind
    assert column.to_pylist() == expected


def test_types_that_come_late() -> None:
    """Keys, and values at all, may come thousands of rows later: until then they are NULL."""
    rows: list[dict[str, Any]] = [{"day": None, "c": {"x": 1}}] * 3000
    rows += [{"day": DAY, "c": {"y": 2}}] * 10 + [{"day": None, "c": None}] * 3000
    assert len(kept(rows, "c.y = 2 and year(day) = 2024")) == 10
    assert len(kept(rows, "c.y is null")) == 6000
    assert len(kept(rows, "c.x = 1")) == 3000
    with pytest.raises(CurateError, match='Could not find key "z"'):
        kept(rows, "c.z = 1")
    with pytest.raises(CurateError, match=r'"cc" not found.* in a separate command'):
        kept(rows, "cc.x = 1")


def test_keys_that_are_data() -> None:
    """Objects with other keys in every row are JSON, which is asked alike and holds no memory."""
    noise = random.Random(0)
    rows = [{"votes": {f"user {noise.random()}": 1, "sum": n}} for n in range(3000)]
    before = pa.total_allocated_bytes()
    assert kept(rows, "votes.sum = 7") == [7]
    assert pa.total_allocated_bytes() - before < 8 << 20


def test_a_list_asked_as_a_text_says_how() -> None:
    """A function that lists don't have is named, with the way to the list's text."""
    with pytest.raises(CurateError, match="COLUMN::text converts one to text"):
        kept(ROWS, "tags like '%safe%'")
    assert kept(ROWS, "tags::text like '%unsafe%'") == [1]
