"""Whatever a reader is given: rows, recorded skips, or one line. Never anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.reading import examples, narrow
from curate.reading.known import COLUMNS, known_layouts
from curate.reading.layouts import conversation, messages_of
from curate.reading.turns import Skip
from tests.files import KINDS, write

ROWS = [
    {"prompt": 'q, "x"\n', "response": f"a {n}", "label": "é" * n, "n": str(n)} for n in range(4)
]
TOO_SLOW = HealthCheck.too_slow
pytestmark = pytest.mark.slow


def read(path: Path, **options: Any) -> None:
    """Read examples; every table is what it says it is."""
    for tables in examples.read([str(path)], **options):
        for table in tables:
            table.validate(full=True)


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


@pytest.mark.parametrize("name", [*(f"x{kind}" for kind in KINDS), "x.jsonl.gz", "x.csv.zst"])
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    """A good file with a few bytes changed is read, skipped or refused in every reader."""
    good = write(tmp_path / name, ROWS).read_bytes()

    @settings(deadline=None, max_examples=25, database=None, suppress_health_check=[TOO_SLOW])
    @given(damaged(good))
    def check(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            for reader in (
                lambda: read(path),
                lambda: read(path, strict=True),
                lambda: read(path, where="prompt <> 'zz'"),
                lambda: narrow.read(str(path)),
            ):
                try:
                    reader()
                except CurateError as error:
                    assert "\n" not in str(error)
                    assert str(path) in str(error) or "--where" in str(error)

    check()


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


@settings(deadline=None, max_examples=300, database=None)
@given(st.dictionaries(WORDS, VALUES, max_size=6), st.dictionaries(st.sampled_from(COLUMNS), WORDS))
def test_any_row(row: dict[str, Any], columns: dict[str, str]) -> None:
    """A row of any values under the names that mean something is messages, or says why not."""
    try:
        known = known_layouts(columns)
        messages = messages_of(conversation(row, known).turns, known)
    except (Skip, CurateError) as refused:
        assert str(refused)
        return
    assert messages[-1]["role"] == "assistant"
    assert all(set(message) >= {"role", "content"} for message in messages)
    assert all(isinstance(text, str) for message in messages for text in message.values())
