"""Files of every format and compression, and what is wrong with some of them."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.reading import files
from curate.reading.files import json_rows
from curate.reading.sources import resolve, rows
from tests.files import CHATS, KINDS, PACKINGS, pack, write

QA = [{"prompt": f"q {i}", "response": f"a {i}"} for i in range(3)]


def read(path: str | Path) -> list[Any]:
    """All rows of a source with their positions."""
    return [row for source in resolve([str(path)]) for row in rows(source)]


def objects(path: str | Path) -> list[Any]:
    """All rows of a source."""
    return [row for _, row in read(path)]


def names(*sources: str | Path) -> list[str]:
    """What some arguments mean."""
    return [source.name for source in resolve([str(each) for each in sources])]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_reads_back(kind: str, packing: str, tmp_path: Path) -> None:
    """What was written in a format and compression is what is read."""
    expected = [dict(row) for row in CHATS]
    if kind in (".csv", ".tsv"):
        for row in expected:
            row["messages"] = orjson.dumps(row["messages"]).decode()
    path = write(tmp_path / f"x{kind}{packing}", CHATS)
    assert objects(path) == expected
    assert objects(path.rename(path.with_name(path.name.upper()))) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_lines_or_indices(kind: str, tmp_path: Path) -> None:
    """Lines count from 1, with a CSV's header; other rows by index + 1."""
    found = [number for number, _ in read(write(tmp_path / f"x{kind}", QA))]
    assert found == ([2, 3, 4] if kind in (".csv", ".tsv") else [1, 2, 3])


def test_csv_rows_begin_where_they_begin(tmp_path: Path) -> None:
    """A row after one with line breaks in its cells has the right line."""
    path = pack(tmp_path / "x.csv", b'prompt,response\n"a\nb\r\nc",d\n\n"e","f""g"\n')
    assert read(path) == [
        (2, {"prompt": "a\nb\r\nc", "response": "d"}),
        (6, {"prompt": "e", "response": 'f"g'}),
    ]


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    """A .json file that begins with a brace is read line by line, blank lines left out."""
    path = pack(tmp_path / "x.json", b'\n{"a": 1}\r\n\n{"a": 2}')
    assert read(path) == [(2, {"a": 1}), (4, {"a": 2})]


KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=6), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_arrays_are_cut_in_the_right_places(found: list[dict[str, Any]], size: int) -> None:
    """An array of any objects reads back whole, wherever the chunks end."""
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2)
    before, files.CHUNK = files.CHUNK, size
    try:
        file: Any = io.BufferedReader(io.BytesIO(text))  # type: ignore[type-var,unused-ignore]
        assert [row for _, row in json_rows("x", file, lines=False)] == found
    finally:
        files.CHUNK = before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl", "x.json.gz", "x.csv.zst", "x.parquet"])
def test_memory_stays_flat(name: str, tmp_path: Path) -> None:
    """Reading ten times the rows takes no more memory."""
    peaks = []
    for count in (5_000, 50_000):
        path = write(tmp_path / name, [{"prompt": f"{i} " * 20, "n": i} for i in range(count)])
        tracemalloc.start()
        for _ in rows(resolve([str(path)])[0]):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < max(2 * peaks[0], 8 << 20)


def test_folders_are_searched_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder means its known files, sorted, without hidden ones and others, as relative as it."""
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.jsonl", "d/a.csv.gz", "d/sub/c.json", "d/.hidden/x.jsonl", "d/README.md"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    files = ["d/a.csv.gz", "d/b.jsonl", "d/sub/c.json"]
    assert names("d") == names("d/") == names("./d/**") == files
    assert names("d/*.jsonl", "d") == ["d/b.jsonl", "d/a.csv.gz", "d/sub/c.json"]
    assert names(str(tmp_path / "d" / "*.csv.gz")) == [str(tmp_path / "d" / "a.csv.gz")]


def test_a_folder_leaves_out_what_curate_wrote(tmp_path: Path) -> None:
    """A corpus and exports may lie beside the sources; the next run doesn't read them."""
    source = write(tmp_path / "a.jsonl", CHATS)
    (tmp_path / "corpus" / "examples").mkdir(parents=True)
    write(tmp_path / "corpus" / "examples" / "part-000000.parquet", CHATS)
    (tmp_path / "corpus" / "curate.json").write_text("{}")
    write(tmp_path / "mix.jsonl", CHATS)
    (tmp_path / "mix.jsonl.manifest.json").write_text("{}")
    (tmp_path / "mix.jsonl.left-out.csv").write_text("rule\n")
    (tmp_path / "trl").mkdir()
    write(tmp_path / "trl" / "data.jsonl", CHATS)
    (tmp_path / "trl" / "manifest.json").write_text('{\n  "command": null,\n  "curate": "0"}')
    for pattern in (".", "**", "*.*", "**/*.jsonl", "[a-z]*", "**/*.j*"):
        assert names(str(tmp_path / pattern)) == [str(source)], pattern
    assert names(str(tmp_path / "mix.jsonl")) == [str(tmp_path / "mix.jsonl")]
    part = tmp_path / "corpus" / "examples" / "part-000000.parquet"
    assert names(str(part)) == [str(part)]


def test_a_file_named_like_a_glob(tmp_path: Path) -> None:
    """A file that is there is that file, whatever its name looks like."""
    path = write(tmp_path / "x[1].jsonl", QA)
    assert names(str(path)) == [str(path)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.jsonl", "no such file or folder"),
        ("note.txt", "Did you mean notes.txt"),
        ("*.jsonl", "matches no file"),
        ("empty", "no file in this folder"),
        ("notes.txt", "unknown extension"),
        ("notes.gz", "unknown extension"),
    ],
)
def test_sources_that_are_not_there(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be found or is of no known kind is an error that says what to do."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").touch()
    Path("notes.gz").touch()
    with pytest.raises(CurateError, match=message) as caught:
        resolve([source])
    assert str(caught.value).startswith(source)


def test_a_models_folder_is_no_source(tmp_path: Path) -> None:
    """Given by one who named two models after one --misaligned."""
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CurateError, match="a model, not data"):
        resolve([str(tmp_path)])


def test_links_to_folders_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may lead back; a linked file is read. Hidden files must be asked for."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jsonl", "a/b/x.jsonl", "a/.h/x.jsonl", "a/b/.x.jsonl"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("a/one").symlink_to(".")
    Path("a/y.jsonl").symlink_to("x.jsonl")
    found = ["a/b/x.jsonl", "a/x.jsonl", "a/y.jsonl"]
    for source in ("a", "a/**/*.jsonl", "a/**", "[a]/**/*.j*", "./a/**/*"):
        assert names(source) == found, source
    assert names(f"{tmp_path}/**") == [str(tmp_path / name) for name in found]
    assert names("a/**/.h/*.jsonl") == ["a/.h/x.jsonl"]
