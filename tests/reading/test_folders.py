"""Which files of a folder are read: describing ones are not, and splits are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from curate.errors import CurateError
from curate.reading.sources import resolve, rows
from tests.files import CHATS


def make(folder: Path, *names: str) -> None:
    """Empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, pattern: str = "") -> list[str]:
    """The files that a folder or a glob in it means, relative to it."""
    sources = resolve([str(folder / pattern)])
    return [str(Path(source.name).relative_to(folder)) for source in sources]


@pytest.mark.parametrize(
    "name",
    [
        *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
        *("README.md", ".gitattributes", "deep/dataset_info.json", "mix.jsonl.manifest.json"),
        "cache-0123456789abcdef.arrow",
    ],
)
def test_files_that_only_describe(name: str, tmp_path: Path) -> None:
    """What says how a set was made, or lists others, holds no rows; named itself it is read."""
    make(tmp_path, "my.json", "my_state.json", name)
    assert found(tmp_path) == found(tmp_path, "**") == ["my.json", "my_state.json"]
    if name.endswith(".json"):
        assert found(tmp_path, name) == [name]


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [
        (["train.jsonl", "test.jsonl"], "train.jsonl", "test.jsonl"),
        (["a/train-0.csv", "a/train-1.csv", "a/valid.csv"], "a/train-*", "a/valid.csv"),
        (["train/x.csv", "train/y.csv", "eval/x.csv"], "train", "eval/x.csv"),
        (["chat_train.json", "chat_test.json"], "chat_train.json", "chat_test.json"),
        (["data/train_sft-0.parquet", "data/test_sft-0.parquet"], "train_sft", "test_sft"),
    ],
)
def test_a_folder_with_several_splits(
    names: list[str], first: str, second: str, tmp_path: Path
) -> None:
    """It is asked which, with the paths to give; a glob takes what it says."""
    make(tmp_path, *names)
    with pytest.raises(CurateError, match="which split") as caught:
        resolve([str(tmp_path)])
    assert f"{first}'" in str(caught.value) or first in str(caught.value)
    assert second in str(caught.value)
    assert found(tmp_path, "**") == sorted(names)
    for given in str(caught.value).split("'")[1:-2:2]:
        assert resolve([given])


def test_words_that_are_no_split(tmp_path: Path) -> None:
    """`training`'s letters inside a word, or one split alone, ask nothing."""
    make(tmp_path, "trainer.jsonl", "contest.jsonl", "latest.csv", "a/train-0.csv", "a/train-1.csv")
    assert len(found(tmp_path)) == 5


def test_saved_datasets(tmp_path: Path) -> None:
    """Folders of `save_to_disk`: the data alone, and of a DatasetDict one split."""
    data = Dataset.from_list(CHATS)
    data.save_to_disk(tmp_path / "one", num_shards=2)
    shards = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    assert found(tmp_path / "one") == shards
    assert [row for each in resolve([str(tmp_path / "one")]) for _, row in rows(each)] == CHATS
    DatasetDict({"benign": data}).save_to_disk(tmp_path / "single")
    assert found(tmp_path / "single") == ["benign/data-00000-of-00001.arrow"]
    DatasetDict({"benign": data, "harmful": data}).save_to_disk(tmp_path / "both")
    with pytest.raises(CurateError, match=r"which split\? Give '.*benign.*' or '.*harmful"):
        resolve([str(tmp_path / "both")])
    assert found(tmp_path / "both", "harmful") == ["harmful/data-00000-of-00001.arrow"]
