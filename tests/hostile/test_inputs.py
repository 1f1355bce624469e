"""Inputs that are broken on purpose: rows, recorded skips, or one line that names the file."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.reading import files, narrow, parquet, sources
from curate.reading.examples import read
from curate.storage.schema import EXAMPLES, SKIPPED

Verdict = tuple[int, int] | str
"""How many examples and how many skipped rows, or a part of the error for the file."""
GOOD = b'{"prompt": "q", "response": "a"}\n'
CSV = b"prompt,response\nq,a\n"
USER = b'{"role": "user", "content": "q"}'
ANSWER = b'{"role": "assistant", "content": "a"}'


def _row(answer: bytes) -> bytes:
    return b'{"prompt": "q", "response": ' + answer + b"}"


def _messages(content: bytes) -> bytes:
    return b'{"messages": ' + content + b"}"


def _parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _beside(values: pa.Array) -> bytes:
    """Prompts and answers of two rows with one more column of an unexpected type."""
    return _parquet({"prompt": ["q", "q"], "response": ["a", "b"], "x": values})


BROKEN = {
    "latin-1": _row(b'"K\xf6ln"'),
    "surrogate as UTF-8": _row(b'"\xed\xa0\x80"'),
    "escaped NUL": _row(rb'"a\u0000b"'),
    "half a pair": _row(rb'"\ud83d"'),
    "NaN": _row(b"NaN"),
    "deep arrays": _row(b"[" * 100_000 + b"]" * 100_000),
    "an array for the answer": _row(b"[[1, 2]]"),
    "messages of nothing": _messages(b"[]"),
    "messages in broken text": _messages(rb'"[{\"role\": \"user\""'),
    "a role that is a list": _messages(b'[{"role": ["user"], "content": "q"}, ' + ANSWER + b"]"),
    "a history of threes": b'{"instruction": "q", "output": "a", "history": [[1, 2, 3]]}',
}
"""Between two good lines: skipped, in JSON Lines and in an array."""
ODD = {
    "escaped pair": _row(rb'"\ud83d\ude00"'),
    "noncharacters": _row('"\ufffe\uffff\U0010ffff\ufeff"'.encode()),
    "a huge integer elsewhere": _row(b'"a", "n": ' + b"9" * 300),
    "duplicate keys": b'{"prompt": "x", "prompt": "q", "response": "x", "response": "a"}',
    "a key like SQL": _row(b'"a", "\\"; drop table examples; --": 1'),
    "100,000 turns": _messages(b"[" + (USER + b",") * 99_999 + ANSWER + b"]"),
    "a megabyte of text": _row(b'"' + b"x " * 2**19 + b'"'),
}
"""Between two good lines: a row all the same."""
PACKED = gzip.compress(GOOD * 1000)
PARQUET = _parquet({"prompt": ["q"] * 500, "response": ["a"] * 500})
INPUTS: dict[str, tuple[bytes, Verdict]] = {
    **{f"line {name}.jsonl": (GOOD + line + b"\n" + GOOD, (2, 1)) for name, line in BROKEN.items()},
    **{
        f"element {name}.json": (b"[" + b",".join((GOOD, line, GOOD)) + b"]", (2, 1))
        for name, line in BROKEN.items()
    },
    **{f"odd {name}.jsonl": (GOOD + line + b"\n" + GOOD, (3, 0)) for name, line in ODD.items()},
    # bytes and line ends
    "bom.csv": (b"\xef\xbb\xbf" + CSV, (1, 0)),
    "utf-16.jsonl": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "old mac.jsonl": (GOOD.replace(b"\n", b"\r") * 2, "no example could be read"),
    "mixed ends.csv": (CSV + b"q,b\r\nq,c\rq,d", (4, 0)),
    # files of JSON
    "cut off.jsonl": (GOOD + GOOD[:20] + b"\n" + GOOD, (2, 1)),
    "no known column.jsonl": (b'{"a": 1}\n' * 3, "unknown format"),
    "open array.json": (b"[" + GOOD, "not closed after 0 rows"),
    "an object.json": (b'{\n "rows": []\n}', "one JSON object"),
    # CSV
    "lines in cells.csv": (b'prompt,response\n"q\n\n""x""\r\n","a,b\n"\n', (1, 0)),
    "open quote.csv": (CSV + b'q,"a\nq,b\nq,c\n', (1, 1)),
    "too few cells.csv": (CSV + b"q\nq,b\n", (2, 1)),
    "NUL.csv": (CSV + b"q,a\0b\nq,b\n", (2, 1)),
    "latin-1.csv": (CSV + b"q,K\xf6ln\nq,b\n", (2, 1)),
    "latin-1 header.csv": (b"prompt,r\xe9ponse\nq,a\n", "header"),
    "a header twice.csv": (b"prompt,prompt\nq,a\n", "names a column twice"),
    # nothing
    "header alone.csv": (b"prompt,response\n", "no row"),
    "empty array.json": (b" [ ] ", "no row"),
    "empty.parquet": (b"", "no row"),
    # compressed
    "cut.jsonl.gz": (PACKED[:-9], "can't be read"),
    "cut.jsonl.zst": (pa.compress(GOOD * 1000, "zstd", asbytes=True)[:-3], "can't be read"),
    "flipped.jsonl.gz": (PACKED[:40] + b"\xff" + PACKED[41:], "can't be read"),
    "packed twice.jsonl.gz": (gzip.compress(PACKED), "no example could be read"),
    # Parquet
    "beside decimals.parquet": (_beside(pa.array([None, 10**60], pa.decimal256(76))), (2, 0)),
    "beside bytes.parquet": (_beside(pa.array([b"\xff", b"\0"])), (2, 0)),
    "numbers for texts.parquet": (
        _parquet({"prompt": [1, 2], "response": [[1.0], []]}),
        "no example could be read",
    ),
    "no UTF-8.parquet": (
        _parquet({"prompt": pa.array([b"q", b"\xff"]).view(pa.string()), "response": ["a", "b"]}),
        (1, 1),
    ),
    "a footer too long.parquet": (PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", "can't be read"),
    "packed.parquet.gz": (gzip.compress(PARQUET), (500, 0)),
}


def take(path: Path, **options: Any) -> tuple[list[Any], list[Any]]:
    """All examples and skipped rows, each table checked to the last byte."""
    good, bad = [], []
    for found, skipped in read([str(path)], **options):
        found.validate(full=True)
        skipped.validate(full=True)
        assert (found.schema, skipped.schema) == (EXAMPLES, SKIPPED)
        good += found.to_pylist()
        bad += skipped.to_pylist()
    return good, bad


def refused(path: Path, reader: Callable[[], Any]) -> str:
    """The error, of one line that begins with the file and fits a terminal, or nothing."""
    try:
        reader()
    except CurateError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
        assert len(str(error)) < 1200 + len(str(path))
        return str(error).removeprefix(str(path))
    return ""


@pytest.mark.parametrize("name", INPUTS)
def test_each_has_its_end(name: str, tmp_path: Path) -> None:
    """So many examples and so many skips with a place and a reason, or one error for the file.

    Read strictly, the first skip is an error with its place. A narrow set is copied, not scored:
    it may keep what can't be scored, or refuse other things.
    """
    path, expected = tmp_path / name, INPUTS[name][1]
    path.write_bytes(INPUTS[name][0])
    refused(path, lambda: narrow.read(str(path)))
    if isinstance(expected, str):
        assert expected in refused(path, lambda: take(path))
        return
    good, bad = take(path)
    assert (len(good), len(bad)) == expected
    for row in bad:
        assert (row["source"], row["row"] >= 1) == (str(path), True)
        assert 0 < len(row["reason"]) < 1000
        assert "\n" not in row["reason"]
    strictly = refused(path, lambda: take(path, strict=True))
    assert strictly.startswith(f":{bad[0]['row']}: ") if bad else not strictly


# Sizes


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits that are stated, a thousandth of them: the same code at a test's size."""
    for room, name, value in (
        (files, "ROW_BYTES", 1 << 17),
        (files, "CHUNK", 1 << 12),
        (parquet, "ROW_BYTES", 1 << 17),
        (parquet, "BYTES", 1 << 16),
        (sources, "CHUNK", 1 << 12),
        (sources, "UNPACKED_BYTES", 1 << 20),
        (sources, "UNPACKED_TIMES", 10),
    ):
        monkeypatch.setattr(room, name, value)


ENDLESS = 1 << 22
LONG = ["a", "x" * ENDLESS, "b"]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("line.jsonl", GOOD + b"x" * ENDLESS + b"\n" + GOOD, (2, 1)),
        ("last line.jsonl", GOOD + b"{" * ENDLESS, (1, 1)),
        ("line.csv", CSV + b"x" * ENDLESS + b"\nq,b\n", "a line is longer than"),
        ("open quote.csv", CSV + b'q,"' + (b"x" * 16_383 + b"\n") * (ENDLESS >> 14), (1, 248)),
        ("element.json", b"[" + GOOD + b',"' + b"x" * ENDLESS + b'"]', ":2: this row"),
        ("rows.parquet", _parquet({"prompt": ["q"] * 3, "response": LONG}), (2, 1)),
    ],
)
def test_a_row_without_an_end(
    name: str, data: bytes, expected: Verdict, tmp_path: Path, small: None
) -> None:
    """A row beyond the limit is a broken row: a skip in its place, or the array's end."""
    path = tmp_path / name
    path.write_bytes(data)
    if isinstance(expected, str):
        assert expected in refused(path, lambda: take(path))
    else:
        good, bad = take(path)
        assert (len(good), len(bad)) == expected


@pytest.mark.parametrize(
    ("name", "head", "piece"),
    [
        ("line.jsonl.gz", b"", b"x"),
        ("rows.csv.gz", b"prompt,response\n", b"q," + b"a" * 4000 + b"\n"),
        ("unpacked.parquet.gz", b"PAR1", b"x"),
    ],
)
def test_a_bomb_ends_at_the_limit(
    name: str, head: bytes, piece: bytes, tmp_path: Path, small: None
) -> None:
    """A file that unpacks to more than the stated limit is an error that says so."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(head + piece * ((4 << 20) // len(piece)), 9))
    assert "unpacks to more than 1," in refused(path, lambda: take(path))
