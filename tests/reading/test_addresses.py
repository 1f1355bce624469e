"""What people type or paste for a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.reading.addresses import HubSet, parse
from curate.reading.sources import resolve

PAGE = "https://huggingface.co/datasets/o/n"
PARQUET = "refs/convert/parquet"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hf://o/n", HubSet("o/n")),
        ("hf://name:train", HubSet("name", split="train")),
        ("hf://o/n@v1.0/c:test", HubSet("o/n", "v1.0", "c", "test")),
        ("hf://o/n/c@v1.0:test", HubSet("o/n", "v1.0", "c", "test")),
        ("hf://o/n/", HubSet("o/n")),
        ("hf://datasets/o/n", HubSet("o/n")),
        ("hf://datasets/o/n@v1:test", HubSet("o/n", "v1", None, "test")),
        ("hf://datasets/o/n/data/x.csv", HubSet("o/n", path="data/x.csv")),
        ("hf://datasets/o/n@refs%2Fpr%2F1/data", HubSet("o/n", "refs/pr/1", path="data")),
        ("hf://datasets/o/n@refs/pr/1/data", HubSet("o/n", "refs/pr/1", path="data")),
        ("hf://datasets/o/n@~parquet/c/*/*.parquet", HubSet("o/n", PARQUET, path="c/*/*.parquet")),
        ("hf://o/n/data/x.jsonl.gz", HubSet("o/n", path="data/x.jsonl.gz")),
        ("hf://o/n/x.csv", HubSet("o/n", path="x.csv")),
        (PAGE, HubSet("o/n")),
        ("huggingface.co/datasets/o/n/", HubSet("o/n")),
        ("https://hf.co/datasets/n", HubSet("n")),
        (f"{PAGE}/tree/main", HubSet("o/n")),
        (f"{PAGE}/tree/v1", HubSet("o/n", "v1")),
        (f"{PAGE}/tree/refs%2Fconvert%2Fparquet/c", HubSet("o/n", PARQUET, path="c")),
        (f"{PAGE}/blob/main/data/a%20b.csv", HubSet("o/n", path="data/a b.csv")),
        (f"{PAGE}/resolve/v1/x.csv?download=true", HubSet("o/n", "v1", path="x.csv")),
        (f"{PAGE}/viewer/c/test?row=5#top", HubSet("o/n", None, "c", "test")),
        (f"{PAGE}/viewer/c", HubSet("o/n", None, "c")),
        (f"{PAGE}/discussions/3", HubSet("o/n")),
        ("file:///a%20b/x.csv", "/a b/x.csv"),
        ("s3://bucket/x.csv", "s3://bucket/x.csv"),
        ("data/x.csv", "data/x.csv"),
    ],
)
def test_addresses(typed: str, expected: HubSet | str) -> None:
    """Short and long addresses, pages and files of the hub; other addresses stay as they are."""
    assert parse(typed) == expected


@pytest.mark.parametrize(
    "typed", ["hf://o/n", "hf://o/n@v1/c:test", "hf://datasets/o/n@refs%2Fpr%2F1/data/*.csv"]
)
def test_an_address_is_written_as_it_is_read(typed: str) -> None:
    """Messages and tables show what could be typed."""
    assert str(parse(typed)) == typed
    assert parse(str(parse(typed))) == parse(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("hf://", "Write hf://OWNER/NAME"),
        ("hf://a@b@c", "Write hf://OWNER/NAME"),
        ("hf:///a/folder", "Write hf://OWNER/NAME"),
        ("hf://datasets/o/n/x.csv:train", "a path can't have a split"),
        ("hf://models/o/n", "--aligned"),
        ("https://huggingface.co/o/n", "--aligned"),
        ("https://huggingface.co/spaces/o/n", "not the page of a dataset"),
        ("o/n", "hf://o/n"),
        ("o/n@v1", "hf://o/n@v1"),
        ("datasets/o/n", "hf://o/n"),
    ],
)
def test_addresses_of_something_else(
    typed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model, a page without rows, a set without hf://: each in a line that says what to give."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CurateError) as caught:
        resolve([typed])
    assert str(caught.value).startswith(typed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pages_of_ones_own_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT's pages are read like the hub's."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    assert parse("https://hub.example/datasets/o/n/tree/v1") == HubSet("o/n", "v1")
    assert parse("https://other.example/datasets/o/n") == "https://other.example/datasets/o/n"
