"""Inputs that are broken on purpose: rows, recorded skips, or one line that names the file."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import CurateError
from curate.reading import examples, files, narrow, parquet, sources, where
from curate.reading.examples import read
from curate.storage.schema import EXAMPLES, SKIPPED
from tests.conftest import Cli, Family
from tests.files import write

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
    "deep enough to parse": _row(b'"a", "x": ' + b"[" * 1000 + b"]" * 1000),
    "100,000 digits": _row(b"9" * 100_000),
    "an array for the answer": _row(b"[[1, 2]]"),
    "messages of nothing": _messages(b"[]"),
    "messages in broken text": _messages(rb'"[{\"role\": \"user\""'),
    "a role that is a list": _messages(b'[{"role": ["user"], "content": "q"}, ' + ANSWER + b"]"),
    "a role that nests": _messages(
        b'[{"role": ' + b"[" * 900 + b"]" * 900 + b"}, " + ANSWER + b"]"
    ),
    "a history of threes": b'{"instruction": "q", "output": "a", "history": [[1, 2, 3]]}',
}
"""Between two good lines: skipped, in JSON Lines and in an array."""
ODD = {
    "escaped pair": _row(rb'"\ud83d\ude00"'),
    "noncharacters": _row('"\ufffe\uffff\U0010ffff\ufeff"'.encode()),
    "a huge integer elsewhere": _row(b'"a", "n": ' + b"9" * 300),
    "duplicate keys": b'{"prompt": "x", "prompt": "q", "response": "x", "response": "a"}',
    "a key like SQL": _row(b'"a", "\\"; drop table examples; --": 1'),
    "10,000 other columns": _row(b'"a"' + b"".join(b', "k%d": 1' % i for i in range(10_000))),
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
    "two boms.jsonl": (b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD + GOOD, (1, 1)),
    "utf-16.jsonl": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "utf-16 big.csv": (CSV.decode().encode("utf-16-be"), "UTF-16"),
    "old mac.jsonl": (GOOD.replace(b"\n", b"\r") * 2, "no example could be read"),
    "mixed ends.csv": (CSV + b"q,b\r\nq,c\rq,d", (4, 0)),
    # files of JSON
    "cut off.jsonl": (GOOD + GOOD[:20] + b"\n" + GOOD, (2, 1)),
    "no known column.jsonl": (b'{"a": 1}\n' * 3, "unknown format"),
    "10,000 unknown columns.jsonl": (
        b"{" + b",".join(b'"column %d": 1' % i for i in range(10_000)) + b"}\n",
        "(10000 in all)",
    ),
    "open array.json": (b"[" + GOOD, "not closed after 0 rows"),
    "open text.json": (b"[" + GOOD + b', {"prompt": "q', "not closed after 1 rows"),
    "closed twice.json": (b"[" + GOOD + b"]]", "something follows"),
    "an object.json": (b'{\n "rows": []\n}', "one JSON object"),
    # CSV
    "lines in cells.csv": (b'prompt,response\n"q\n\n""x""\r\n","a,b\n"\n', (1, 0)),
    "open quote.csv": (CSV + b'q,"a\nq,b\nq,c\n', (1, 1)),
    "too few cells.csv": (CSV + b"q\nq,b\n", (2, 1)),
    "NUL.csv": (CSV + b"q,a\0b\nq,b\n", (2, 1)),
    "latin-1.csv": (CSV + b"q,K\xf6ln\nq,b\n", (2, 1)),
    "latin-1 header.csv": (b"prompt,r\xe9ponse\nq,a\n", "header"),
    "a header twice.csv": (b"prompt,prompt\nq,a\n", "names a column twice"),
    "formulas.csv": (CSV + b'q,=cmd|"/C calc"!A0\nq,@SUM(1)\n', (3, 0)),
    "100,000 cells.csv": (CSV + b"," * 100_000 + b"\n" + CSV[16:], (2, 1)),
    # nothing
    "header alone.csv": (b"prompt,response\n", "no row"),
    "empty array.json": (b" [ ] ", "no row"),
    "empty.parquet": (b"", "no row"),
    "no columns.parquet": (_parquet({}), "no row"),
    # compressed
    "cut.jsonl.gz": (PACKED[:-9], "can't be read"),
    "cut.jsonl.zst": (pa.compress(GOOD * 1000, "zstd", asbytes=True)[:-3], "can't be read"),
    "flipped.jsonl.gz": (PACKED[:40] + b"\xff" + PACKED[41:], "can't be read"),
    "noise after.jsonl.gz": (PACKED + b"noise", "can't be read"),
    "packed twice.jsonl.gz": (gzip.compress(PACKED), "no example could be read"),
    # Parquet
    "beside dates far away.parquet": (
        _beside(pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())),
        (1, 1),
    ),
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


def test_the_command_reads_them_all(cli: Cli, family: Family, tmp_path: Path) -> None:
    """One run over the whole folder ends well, and every skip can be looked up."""
    folder, corpus = tmp_path / "in", tmp_path / "corpus"
    folder.mkdir()
    skips = {name: verdict[1] for name, (_, verdict) in INPUTS.items() if verdict[0] in range(501)}
    for name in skips.keys() - {"odd 100,000 turns.jsonl", "odd a megabyte of text.jsonl"}:
        (folder / name).write_bytes(INPUTS[name][0])
    options = ["-c", corpus, "--aligned", family.aligned, "--max-length", "64", "-q"]
    ran = cli("score", folder, *options)
    assert ran.code == 0, ran.err
    query = "select count(*) n, count(distinct source) files from skipped where model is null"
    (counted,) = json.loads(cli("sql", query, "-c", corpus, "--format", "json").out)
    assert (counted["n"], counted["files"]) == (sum(skips.values()), sum(map(bool, skips.values())))


# Sizes


def peak_of(path: Path, **options: Any) -> tuple[int, tuple[int, int]]:
    """The most bytes that reading a file holds, in Python and in Arrow; examples and skips."""
    arrow, most, good, bad = pa.total_allocated_bytes(), 0, 0, 0
    tracemalloc.start()
    try:
        for found, skipped in read([str(path)], **options):
            good, bad = good + found.num_rows, bad + skipped.num_rows
            most = max(most, pa.total_allocated_bytes() - arrow)
        return tracemalloc.get_traced_memory()[1] + most, (good, bad)
    finally:
        tracemalloc.stop()


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
        (where, "CHUNK_BYTES", 1 << 16),
        (examples, "FLUSH_BYTES", 1 << 18),
    ):
        monkeypatch.setattr(room, name, value)


ENDLESS = 1 << 22


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("line.jsonl", GOOD + b"x" * ENDLESS + b"\n" + GOOD, (2, 1)),
        ("last line.jsonl", GOOD + b"{" * ENDLESS, (1, 1)),
        ("line.csv", CSV + b"x" * ENDLESS + b"\nq,b\n", (2, 1)),
        ("open quote.csv", CSV + b'q,"' + (b"x" * 16_383 + b"\n") * (ENDLESS >> 14), (1, 249)),
        ("element.json", b"[" + GOOD + b',"' + b"x" * ENDLESS + b'"]', ":2: this row"),
        ("brackets.json", b"[" + GOOD + b"," + b"[" * ENDLESS, ":2: this row"),
    ],
)
def test_a_row_without_an_end(
    name: str, data: bytes, expected: Verdict, tmp_path: Path, small: None
) -> None:
    """A row beyond the limit is a broken row, and is never held: memory stays a few rows' worth."""
    path = tmp_path / name
    path.write_bytes(data)
    if isinstance(expected, str):
        assert expected in refused(path, lambda: take(path))
        return
    peak, counts = peak_of(path)
    assert counts == expected
    assert peak < 20 * files.ROW_BYTES


def test_a_parquet_row_beyond_the_limit(tmp_path: Path, small: None) -> None:
    """It is a skip in its place, like a line."""
    texts = ["a", "x" * ENDLESS, "b"]
    pq.write_table(pa.table({"prompt": texts, "response": texts}), tmp_path / "x.parquet")
    good, bad = take(tmp_path / "x.parquet")
    assert [row["row"] for row in good] == [1, 3]
    assert [(row["row"], "longer than" in row["reason"]) for row in bad] == [(2, True)]


@pytest.mark.parametrize(
    ("name", "head", "piece"),
    [
        ("blank.jsonl.gz", b"", b"\n"),
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


@pytest.mark.parametrize("where", [None, "n >= 0"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_long_rows_are_not_gathered(
    kind: str, where: str | None, tmp_path: Path, small: None
) -> None:
    """Rows are handed on by their bytes, not only by their number: 300 long ones fill no memory."""
    noise = random.Random(0)
    texts = [noise.randbytes(25_000).hex() for _ in range(300)]
    path = tmp_path / f"x.{kind}"
    table = pa.table({"prompt": texts, "response": texts, "n": range(300)})
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=20)
    else:
        write(path, table.to_pylist())
    del texts, table
    peak, counts = peak_of(path, where=where)
    assert counts == (300, 0)
    assert peak < 8 << 20


def test_columns_without_end(tmp_path: Path) -> None:
    """A filter refuses rows that each have other columns, before they fill the memory."""
    rows = [{"prompt": "q", "response": "a", f"c{n}": 1} for n in range(12_000)]
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(CurateError, match="more than 10000 different columns"):
        take(path, where="prompt = 'q'")
    assert len(take(path)[0]) == 12_000
