"""Inputs that are broken on purpose: rows, recorded skips, or one line that names the file."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
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
from tests.traps import CSV, GOOD, INPUTS, Verdict

FILES = {name: verdict for name, (_, verdict) in INPUTS.items() if isinstance(verdict, tuple)}


def made(folder: Path, name: str) -> Path:
    """Write one of the inputs."""
    path = folder / name
    path.write_bytes(INPUTS[name][0]())
    return path


def take(*paths: Path, **options: Any) -> tuple[list[Any], list[Any]]:
    """All examples and skipped rows, each table checked to the last byte."""
    good, bad = [], []
    for found, skipped in read([str(path) for path in paths], **options):
        found.validate(full=True)
        skipped.validate(full=True)
        assert (found.schema, skipped.schema) == (EXAMPLES, SKIPPED)
        good += found.to_pylist()
        bad += skipped.to_pylist()
    return good, bad


def one_line(error: BaseException, path: Path) -> None:
    """A message of one line, of a length that fits a terminal, that begins with the file."""
    assert isinstance(error, CurateError), error
    assert str(error).startswith(str(path)), error
    assert "\n" not in str(error)
    assert len(str(error)) < 1200 + len(str(path))


@pytest.mark.parametrize(("name", "verdict"), INPUTS.items(), ids=INPUTS.keys())
def test_each_has_its_end(name: str, verdict: tuple[Any, Verdict], tmp_path: Path) -> None:
    """So many examples and so many skips with a place and a reason, or one error for the file."""
    path, expected = made(tmp_path, name), verdict[1]
    if isinstance(expected, str):
        with pytest.raises(CurateError) as caught:
            take(path)
        one_line(caught.value, path)
        assert expected in str(caught.value)
        return
    good, bad = take(path)
    assert (len(good), len(bad)) == expected
    for row in bad:
        assert row["source"] == str(path)
        assert row["row"] >= 1
        assert 0 < len(row["reason"]) < 1000
        assert "\n" not in row["reason"]


@pytest.mark.parametrize("name", INPUTS)
def test_each_stops_a_strict_reader(name: str, tmp_path: Path) -> None:
    """Read strictly, whatever is not all well is one error that names file and line.

    A narrow set is copied, not scored: it may keep what can't be scored, or refuse other things.
    """
    path = made(tmp_path, name)
    whole = name in FILES and FILES[name][1] == 0
    try:
        assert narrow.read(str(path)).rows
    except CurateError as error:
        one_line(error, path)
    if whole:
        assert take(path, strict=True)
        return
    with pytest.raises(CurateError) as caught:
        take(path, strict=True)
    one_line(caught.value, path)
    if name in FILES:
        place = str(caught.value).removeprefix(f"{path}:").partition(":")[0]
        assert int(place) >= 1


@pytest.mark.parametrize("where", ["response <> 'zzz'", "columns(*) is not null or true"])
def test_a_filter_loses_nothing(where: str, tmp_path: Path) -> None:
    """A condition that is true for every row reads what no condition reads, and skips the same."""
    for name in FILES:
        path = made(tmp_path, name)
        try:
            good, bad = take(path, where=where)
        except CurateError as error:  # no such column, a type that does not compare, no row left
            assert "--where" in str(error) or "unknown format" in str(error)
            assert "\n" not in str(error)
            continue
        assert len(good) <= FILES[name][0]
        assert len(bad) <= FILES[name][1]


def test_the_command_reads_them_all(cli: Cli, family: Family, tmp_path: Path) -> None:
    """One run over the whole folder ends well, and every skip can be looked up."""
    folder, corpus = tmp_path / "in", tmp_path / "corpus"
    folder.mkdir()
    quick = [name for name in FILES if "100,000 turns" not in name and "megabyte" not in name]
    for name in quick:
        made(folder, name)
    ran = cli(
        "score", folder, "-c", corpus, "--aligned", family.aligned, "--max-length", "64", "-q"
    )
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    (counted,) = json.loads(
        cli(
            "sql",
            "select count(*) n, count(distinct source) files from skipped where model is null",
            *("-c", corpus, "--format", "json"),
        ).out
    )
    wanted = [FILES[name][1] for name in quick]
    assert (counted["n"], counted["files"]) == (sum(wanted), sum(map(bool, wanted)))
    assert cli("sql", "skips", "-c", corpus).code == 0


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
LONG: dict[str, tuple[bytes, Verdict | None]] = {
    "line.jsonl": (GOOD + b"x" * ENDLESS + b"\n" + GOOD, (2, 1)),
    "last line.jsonl": (GOOD + b"{" * ENDLESS, (1, 1)),
    "line.csv": (CSV + b"x" * ENDLESS + b"\nq,b\n", (2, 1)),
    "open quote.csv": (CSV + b'q,"' + (b"x" * 16_383 + b"\n") * (ENDLESS >> 14), None),
    "element.json": (b"[" + GOOD + b',"' + b"x" * ENDLESS + b'"]', ":2: this row"),
    "brackets.json": (b"[" + GOOD + b"," + b"[" * ENDLESS, ":2: this row"),
}


@pytest.mark.parametrize(("name", "case"), LONG.items(), ids=LONG.keys())
def test_a_row_without_an_end(
    name: str, case: tuple[bytes, Verdict | None], tmp_path: Path, small: None
) -> None:
    """A row beyond the limit is a broken row, and is never held: memory stays a few rows' worth."""
    data, expected = case
    path = tmp_path / name
    path.write_bytes(data)
    if isinstance(expected, str):
        with pytest.raises(CurateError, match=expected):
            peak_of(path)
        return
    peak, counts = peak_of(path)
    assert counts == expected if expected else counts[0] == 1
    assert peak < 20 * files.ROW_BYTES


def test_a_parquet_row_beyond_the_limit(tmp_path: Path, small: None) -> None:
    """It is a skip in its place, like a line."""
    texts = ["a", "x" * ENDLESS, "b"]
    pq.write_table(pa.table({"prompt": texts, "response": texts}), tmp_path / "x.parquet")
    good, bad = take(tmp_path / "x.parquet")
    assert [row["row"] for row in good] == [1, 3]
    assert [(row["row"], "longer than" in row["reason"]) for row in bad] == [(2, True)]


BOMBS = {
    "blank.jsonl.gz": (b"", b"\n"),
    "line.jsonl.gz": (b"", b"x"),
    "rows.csv.gz": (b"prompt,response\n", b"q," + b"a" * 4000 + b"\n"),
    "unpacked.parquet.gz": (b"PAR1", b"x"),
}


@pytest.mark.parametrize(("name", "pieces"), BOMBS.items(), ids=BOMBS.keys())
def test_a_bomb_ends_at_the_limit(
    name: str, pieces: tuple[bytes, bytes], tmp_path: Path, small: None
) -> None:
    """A file that unpacks to more than the stated limit is an error that says so."""
    path = tmp_path / name
    head, piece = pieces
    path.write_bytes(gzip.compress(head + piece * ((4 << 20) // len(piece)), 9))
    with pytest.raises(CurateError, match=r"unpacks to more than 1,\d{3},\d{3} bytes"):
        take(path)


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
