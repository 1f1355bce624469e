"""Parquet and Arrow files of every column type that writers of data sets use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.reading import parquet
from curate.reading.parquet import arrow_rows, parquet_rows

TURNS = [
    {"role": "user", "content": "Name a fruit that is not too well known."},
    {"role": "assistant", "content": "Medlar."},
]
COUNT = 600


def rows(path: Path) -> list[Any]:
    """A file's rows without their numbers, which are checked."""
    found = list(arrow_rows(path) if path.suffix == ".arrow" else parquet_rows(path))
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return [row for _, row in found]


def write(table: pa.Table, path: Path, *, stream: bool = False) -> Path:
    """Write a table as Parquet, or as Arrow in one of its two forms."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=250)
    else:
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=450)
    return path


def coded(values: list[Any]) -> pa.Array:
    """Values as a column of Arrow's JSON type, as `datasets` writes its `Json` feature."""
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def columns() -> dict[str, tuple[pa.Array, Any]]:
    """Columns by the name of their type, with the value of every row."""
    text, tags = TURNS[0]["content"], ["a", "of more than twelve bytes"]
    in_json = coded([turn for _ in range(COUNT) for turn in TURNS])
    offsets = pa.array(range(0, 2 * COUNT + 1, 2), pa.int32())
    return {
        "string view": (pa.array([text] * COUNT, pa.string_view()), text),
        "binary view": (pa.array([b"bytes"] * COUNT, pa.binary_view()), b"bytes"),
        "list view": (pa.array([tags] * COUNT, pa.list_view(pa.string())), tags),
        "large list view": (pa.array([tags] * COUNT, pa.large_list_view(pa.string_view())), tags),
        "large list": (pa.array([tags] * COUNT, pa.large_list(pa.large_string())), tags),
        "fixed list": (pa.array([tags] * COUNT, pa.list_(pa.string(), 2)), tags),
        "dictionary": (pa.array([text] * COUNT).dictionary_encode(), text),
        "json": (coded([{"a": [1]}, 2, None] * (COUNT // 3)), None),
        "list of json": (pa.ListArray.from_arrays(offsets, in_json), TURNS),
        "struct of json": (
            pa.StructArray.from_arrays([coded([{"a": [1]}] * COUNT)], ["x"]),
            {"x": {"a": [1]}},
        ),
    }


@pytest.mark.parametrize("name", columns())
@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_columns_of_every_type(name: str, ending: str, tmp_path: Path) -> None:
    """Views, large and fixed lists and dictionaries read as their values, JSON decoded."""
    column, value = columns()[name]
    found = rows(write(pa.table({"x": column}), tmp_path / f"x{ending}"))
    expected = [{"a": [1]}, 2, None] * (COUNT // 3) if name == "json" else [value] * COUNT
    assert [row["x"] for row in found] == expected


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_in_both_forms(stream: bool, tmp_path: Path) -> None:
    """The stream that `datasets` saves and the file with a footer hold the same rows."""
    table = pa.table({"messages": [TURNS] * COUNT, "n": range(COUNT)})
    found = rows(write(table, tmp_path / "x.arrow", stream=stream))
    assert found == table.to_pylist()


def test_a_saved_data_set(tmp_path: Path) -> None:
    """What `Dataset.save_to_disk` leaves, with a column of its `Json` feature."""
    import datasets

    saved = [{"prompt": "q", "meta": {"n": 1}}, {"prompt": "r", "meta": [2, "three"]}]
    features = datasets.Features({"prompt": datasets.Value("string"), "meta": datasets.Json()})
    datasets.Dataset.from_list(saved, features=features).save_to_disk(str(tmp_path / "saved"))
    (path,) = (tmp_path / "saved").glob("*.arrow")
    assert rows(path) == saved


@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_arrow_file_is_an_error(stream: bool, tmp_path: Path) -> None:
    """The end of a file that is not whole is not taken for its end."""
    table = pa.table({"n": range(COUNT)})
    path = write(table, tmp_path / "x.arrow", stream=stream)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises((OSError, pa.ArrowException)):
        rows(path)


def test_rows_of_views_are_not_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow counts for a row of views what all of them see: no row is refused for its neighbors."""
    monkeypatch.setattr(parquet, "ROW_BYTES", 20_000)
    texts = [f"{n} and more than twelve bytes" for n in range(COUNT)]
    for kind in (pa.string(), pa.string_view()):
        table = pa.table({"x": pa.array(texts, kind)})
        assert [row["x"] for row in rows(write(table, tmp_path / "x.arrow"))] == texts
