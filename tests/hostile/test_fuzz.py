"""Whatever bytes a reader is given: rows, recorded skips, or one line. Never anything else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.reading import examples, narrow
from curate.reading.known import COLUMNS, known_layouts
from curate.reading.layouts import parse
from curate.reading.turns import Skip
from curate.reading.where import RowFilter
from curate.storage.schema import EXAMPLES, SKIPPED
from tests.files import KINDS, write

ROWS = [
    {"prompt": 'q, "x"\n', "response": f"a {n}", "label": "é" * n, "n": str(n)} for n in range(4)
]
pytestmark = pytest.mark.slow
QUICK = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], database=None
)


def read_all(path: Path, **options: Any) -> None:
    """Read a file in every way; a user's error is one line that names it."""
    for reader in (
        lambda: read(path, **options),
        lambda: read(path, strict=True),
        lambda: narrow.read(str(path)),
    ):
        try:
            reader()
        except CurateError as error:
            assert "\n" not in str(error)
            assert str(path) in str(error) or "--where" in str(error)


def read(path: Path, **options: Any) -> None:
    """Read examples; every table is what it says it is."""
    for good, bad in examples.read([str(path)], **options):
        assert (good.schema, bad.schema) == (EXAMPLES, SKIPPED)
        good.validate(full=True)
        bad.validate(full=True)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of a good file, some of them changed, cut out, doubled, or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(("put in", "cut out", "double", "end")))
        if how == "put in":
            data[at:end] = draw(st.binary(max_size=12))
        elif how == "cut out":
            del data[at:end]
        elif how == "double":
            data[at:at] = data[at:end]
        else:
            del data[at:]
    return bytes(data)


def check_bytes(name: str, pieces: st.SearchStrategy[bytes]) -> None:
    """Read files of that ending with any of these contents."""

    @QUICK
    @given(pieces)
    def check(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            read_all(path)

    check()


@pytest.mark.parametrize("name", [*(f"x{kind}" for kind in KINDS), "x.jsonl.gz", "x.csv.zst"])
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    """A good file with a few bytes changed is read, skipped or refused in every reader."""
    check_bytes(name, damaged(write(tmp_path / name, ROWS).read_bytes()))


@pytest.mark.parametrize("name", [f"x{kind}" for kind in KINDS if kind != ".parquet"])
def test_any_bytes(name: str) -> None:
    """Bytes of no meaning at all, rich in what means something to a reader."""
    pieces = st.sampled_from(
        [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\\", b"\0", b"\xef\xbb\xbf",
         b'"prompt"', b'"response"', b"prompt,response\n", b"\xff", b"\\ud800", b"1e999", b"\xe2"]
    )  # fmt: skip
    check_bytes(name, st.lists(pieces | st.binary(max_size=3), max_size=30).map(b"".join))


WORDS = st.sampled_from(
    ["messages", "conversations", "role", "from", "content", "value", "prompt", "response", "type",
     "completion", "instruction", "input", "output", "history", "system", "user", "assistant",
     "human", "gpt", "text", "tool_calls", "q", "a", "", "\0", "\ud800"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=14,
)
ODD_ROWS = st.dictionaries(WORDS, VALUES, max_size=6)


@settings(deadline=None, max_examples=300, database=None)
@given(ODD_ROWS, st.dictionaries(st.sampled_from(COLUMNS), WORDS))
def test_any_row(row: dict[str, Any], columns: dict[str, str]) -> None:
    """A row of any values under the names that mean something is messages, or says why not."""
    try:
        messages, _ = parse(row, known_layouts(columns))
    except (Skip, CurateError) as refused:
        assert str(refused)
        return
    assert messages[-1]["role"] == "assistant"
    assert all(set(message) >= {"role", "content"} for message in messages)
    assert all(isinstance(text, str) for message in messages for text in message.values())


@QUICK
@given(st.lists(ODD_ROWS, max_size=5))
def test_any_rows_through_files_and_filters(rows: list[dict[str, Any]]) -> None:
    """The same through a file and a filter: a condition over odd columns ends in rows or a line."""
    lines = [json.dumps(row).encode() for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(b"\n".join(lines))
        read_all(path, where="prompt is null or prompt <> 'zz'")


@QUICK
@given(
    st.text(max_size=20)
    | st.lists(WORDS | st.sampled_from("()'\";-*,.=<>"), max_size=6).map("".join)
)
def test_any_condition(where: str) -> None:
    """Any text as a condition keeps some rows, or is one line."""
    rows = [{"prompt": "q", "a": 1}, {"prompt": "r", "a": None}]
    try:
        kept = RowFilter(where)(rows)
    except CurateError as error:
        assert "\n" not in str(error)
        return
    assert set(kept) <= {0, 1}
