"""Text files as spreadsheets, git and other tools leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curate.errors import CurateError
from curate.reading.sources import resolve, rows
from tests.files import pack

QA = [{"prompt": "q", "response": "a"}, {"prompt": "NA", "response": "2024-01-02"}]


def read(path: Path) -> list[tuple[int, Any]]:
    """All rows of a file with their positions."""
    return [raw for source in resolve([str(path)]) for raw in rows(source)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("prompt,response\nq,a\nNA,2024-01-02\n", 2),
        ("prompt,response,,\nq,a,,\nNA,2024-01-02,,\n", 2),
        ("prompt,response\nq,a,\nNA,2024-01-02,,\n", 2),
        ("sep=,\r\nprompt,response\r\nq,a\r\nNA,2024-01-02\r\n", 3),
        ('"sep=;"\nprompt;response\nq;a\nNA;2024-01-02', 3),
        (" prompt , response\nq,a\nNA,2024-01-02\n", 2),
        ("\ufeffprompt,response\nq,a\nNA,2024-01-02\n", 2),
        ('\ufeff"prompt","response"\nq,a\nNA,2024-01-02\n', 2),
        ("\ufeffsep=\t\nprompt\tresponse\nq\ta\nNA\t2024-01-02\n", 3),
    ],
)
def test_csv_as_spreadsheets_write_it(text: str, first: int, tmp_path: Path) -> None:
    """The same rows, their values as they stand in the file."""
    path = pack(tmp_path / "x.csv", text.encode())
    assert read(path) == list(enumerate(QA, start=first))


def test_a_cell_without_a_column(tmp_path: Path) -> None:
    """Where a column has no name, its text has no place."""
    path = pack(tmp_path / "x.csv", b"prompt,response,\nq,a,\nq,a,b\n")
    assert read(path) == [(2, QA[0]), (3, "3 cells, but the header has 2")]


def test_an_array_in_json_lines(tmp_path: Path) -> None:
    """It is read as the array it is; a list on a line of its own stays one broken row."""
    rows = b'[{"prompt": "q", "response": "a"},\n {"prompt": "NA", "response": "2024-01-02"}]'
    for text in (rows, b"\n[\n" + rows[1:]):
        assert read(pack(tmp_path / "x.jsonl", text)) == list(enumerate(QA, start=1))
    path = pack(tmp_path / "y.jsonl", b'[1]\n{"prompt": "q", "response": "a"}\n')
    assert read(path) == [(1, "not a JSON object"), (2, QA[0])]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv.zst", "x.parquet", "x.jsonl.gz"])
def test_a_git_lfs_pointer(name: str, tmp_path: Path) -> None:
    """A clone without git-lfs has text in a file's place; one line says how to get the file."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 678\n"
    path = tmp_path / name
    path.write_bytes(pointer)
    with pytest.raises(CurateError, match=rf"{name}: a git-lfs pointer.* git lfs pull$"):
        read(path)
