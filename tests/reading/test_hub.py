"""Data sets of the hub: their files are found, fetched and read as files of the disk are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from curate.errors import CurateError
from curate.reading.examples import read
from curate.reading.sources import resolve, rows
from tests.files import CHATS, write
from tests.hub import Hub

LINES = b'{"prompt": "q", "response": "NA"}\n{broken\n{"prompt": "r", "response": "2024-01-05"}\n'
CARD = (
    "---\nconfigs:\n"
    "- config_name: chat\n  default: true\n  data_files:\n"
    "  - {split: train, path: data/train-*}\n  - {split: test, path: data/test.parquet}\n"
    "- config_name: pairs\n  data_files:\n  - {split: all, path: pairs.csv}\n"
    "- config_name: lines\n  data_files: lines.jsonl\n---\n"
)


def objects(*addresses: str) -> list[Any]:
    """All rows of some sources."""
    return [row for source in resolve(addresses) for _, row in rows(source)]


def refused(address: str) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(CurateError) as caught:
        objects(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def push(hub: Hub, folder: Path, ref: str = "main") -> str:
    """`acme/set`: three configs; the first has two splits, and the first of these two files."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write(folder / "data" / "train-00000-of-00002.parquet", CHATS[:3])
    write(folder / "data" / "train-00001-of-00002.parquet", CHATS[3:])
    write(folder / "data" / "test.parquet", CHATS[:2])
    (folder / "lines.jsonl").write_bytes(LINES)
    (folder / "pairs.csv").write_text("prompt,response,when\nq,NA,2024-01-05\n007,1e5,\n")
    (folder / "README.md").write_text(CARD)
    return hub.push("datasets/acme/set", folder, ref)


def test_splits_and_configs(hub: Hub, tmp_path: Path) -> None:
    """The default config and split, and named ones; positions count on from file to file."""
    commit = push(hub, tmp_path)
    (source,) = resolve(["hf://acme/set"])
    assert (source.name, source.commit, source.asked) == ("hf://acme/set", commit, "hf://acme/set")
    assert list(rows(source)) == list(enumerate(CHATS, start=1))
    for same in ("hf://acme/set/chat:train", f"hf://acme/set@{commit}", "hf://datasets/acme/set"):
        assert objects(same) == CHATS
    assert objects("hf://acme/set/pairs") == objects("hf://acme/set/pairs:all")
    assert [type(row) for row in objects("hf://acme/set/lines")] == [dict, str, dict]
    found = resolve([f"{hub.url}/datasets/acme/set", "hf://acme/set", "hf://acme/set:test"])
    assert [each.name for each in found] == ["hf://acme/set", "hf://acme/set:test"]


@pytest.mark.parametrize(
    "path", ["pairs.csv", "lines.jsonl", "data/train-*", "pairs.csv.gz", "list.json"]
)
def test_rows_are_those_of_the_files(path: str, hub: Hub, tmp_path: Path) -> None:
    """Types, dates, NA, broken lines and positions: the same from the hub as from the disk."""
    write(tmp_path / "list.json", [{"prompt": "NA", "response": "2024-01-05", "n": 7}, {"n": "7"}])
    write(tmp_path / "pairs.csv.gz", [{"prompt": "NA", "response": "007"}])
    push(hub, tmp_path)
    theirs = resolve([f"hf://datasets/acme/set/{path}"])
    ours = resolve([str(tmp_path / path)])
    assert [list(rows(each)) for each in theirs] == [list(rows(each)) for each in ours]
    assert [Path(each.name).name for each in theirs] == [Path(each.name).name for each in ours]


def test_a_split_is_the_same_with_and_without_a_card(hub: Hub) -> None:
    """Names of files and folders say the splits where no card does; columns keep no type."""
    hub.push("datasets/acme/bare", {"train.csv": "prompt,n\nNA,007\n", "test.csv": "prompt,n\n"})
    assert objects("hf://acme/bare") == [{"prompt": "NA", "n": "007"}]
    assert objects("hf://acme/bare:test") == []
    hub.push("datasets/acme/lines", {"deep/train/a.jsonl": LINES, "LICENSE": "x"})
    assert [type(row) for row in objects("hf://acme/lines")] == [dict, str, dict]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://acme/set:dev", "no split 'dev'. There are hf://acme/set:train, hf://acme/set:test."),
        ("hf://acme/set/chats", "no config 'chats'. There are hf://acme/set/chat, hf://acme/set/p"),
        ("hf://acme/set@v9", "no such revision. There are: main"),
        ("hf://acme/gone", "no dataset acme/gone"),
        ("hf://acme/model", "a model, not a dataset. Give it with --aligned"),
        ("hf://acme/closed", "gated. Accept the terms at"),
        ("hf://acme/hidden", "or it is private"),
        ("hf://acme/script", "scripts are not run"),
        ("hf://acme/pictures", "can't read train/a.png"),
        ("hf://acme/text", "can't read train.txt"),
        (
            "hf://acme/evals",
            "which split? There are hf://acme/evals:validation, hf://acme/evals:test",
        ),
        ("hf://acme/choice", "which config? There are hf://acme/choice/a, hf://acme/choice/b."),
        ("hf://acme/semicolons", "its card sets sep"),
        ("hf://acme/outside", "its card names"),
        ("hf://acme/empty", "can't tell which files"),
        ("hf://datasets/acme/set/README.md", "unknown extension"),
        (
            "hf://datasets/acme/set/nothing",
            "Some of its files: data/test.parquet",
        ),
        ("hf://datasets/acme/set/x*.csv", "matches no file"),
        (
            "hf://datasets/acme/set/data",
            "which split? Give 'hf://datasets/acme/set/data/test.parquet'",
        ),
    ],
)
def test_what_cant_be_read(address: str, said: str, hub: Hub, tmp_path: Path) -> None:
    """Each in one line, with what there is or what to do."""
    config = "---\nconfigs:\n- config_name: a\n  data_files: "
    push(hub, tmp_path / "set")
    (tmp_path / "outside.jsonl").touch()
    hub.push("acme/model", {"config.json": "{}"})
    for name in ("closed", "hidden"):
        hub.push(f"datasets/acme/{name}", {"README.md": "", "train.jsonl": LINES})
    hub.repos["datasets/acme/closed"].gated = hub.repos["datasets/acme/hidden"].private = True
    hub.push("datasets/acme/script", {"script.py": "", "train.jsonl": LINES})
    hub.push("datasets/acme/pictures", {"train/a.png": b"", "train/b.png": b""})
    hub.push("datasets/acme/text", {"train.txt": "a\n"})
    hub.push("datasets/acme/evals", {"validation.jsonl": LINES, "test.jsonl": LINES})
    both = f"{config}a.csv\n- config_name: b\n  data_files: a.csv\n---\n"
    hub.push("datasets/acme/choice", {"README.md": both, "a.csv": ""})
    semicolons = f"{config}a.csv\n  sep: ';'\n---\n"
    hub.push("datasets/acme/semicolons", {"README.md": semicolons, "a.csv": ""})
    outside = f"{config}{tmp_path / 'outside.jsonl'}\n---\n"
    hub.push("datasets/acme/outside", {"README.md": outside, "a.csv": ""})
    hub.push("datasets/acme/empty", {"README.md": "no rows"})
    assert said in refused(address)
    assert refused(address).startswith(address)


def test_a_few_rows_open_one_file(hub: Hub) -> None:
    """Of 20 files the first is fetched; all sources are looked up before that."""
    line = b'{"prompt": "q", "response": "a"}\n'
    hub.push("datasets/acme/many", {f"train-{n:05}-of-00020.jsonl": line * 50 for n in range(20)})
    with pytest.raises(CurateError, match="acme/gone"):
        read(["hf://acme/many", "hf://acme/gone"], limit=10)
    assert not hub.asked("resolve.*jsonl")
    assert sum(table.num_rows for table, _ in read(["hf://acme/many"], limit=10)) == 10
    assert len({line.rpartition("/")[2] for line in hub.asked("resolve.*jsonl")}) == 1


def test_without_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read once is read again, whether the network is off or down; the rest is named."""
    commit = push(hub, tmp_path)
    assert objects("hf://acme/set") == CHATS
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    (source,) = resolve(["hf://acme/set"])
    assert source.commit == commit
    assert objects("hf://acme/set") == objects(f"hf://acme/set@{commit}") == CHATS
    said = refused("hf://acme/set:test")
    assert said.startswith("hf://datasets/acme/set/data/test.parquet: not in the local cache")
    assert said.endswith("hf download --repo-type dataset acme/set")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    hub.fail(".", "drop", times=1000)
    assert objects("hf://acme/set") == CHATS


def test_a_set_that_moves(hub: Hub, tmp_path: Path) -> None:
    """The commit is that of now, files are read at it, and the earlier one can be named."""
    first = push(hub, tmp_path)
    assert objects("hf://acme/set") == CHATS
    write(tmp_path / "data" / "train-00001-of-00002.parquet", CHATS[:1])
    second = hub.push("datasets/acme/set", tmp_path)
    (source,) = resolve(["hf://acme/set"])
    assert first != source.commit == second
    assert objects("hf://acme/set") == [*CHATS[:3], CHATS[0]]
    assert objects(f"hf://acme/set@{first}") == CHATS
    hub.repos["datasets/acme/old"] = type(hub.repos["datasets/acme/set"])(moved_to="acme/set")
    assert len(objects("hf://acme/old")) == 4


def test_a_fault_that_stays(hub: Hub, tmp_path: Path) -> None:
    """It ends in one line, with the file that is missing."""
    push(hub, tmp_path)
    hub.fail("GET cdn", "status", at=2, times=100)
    said = refused("hf://acme/set")
    assert said.startswith("hf://datasets/acme/set/data/train-00001-of-00002.parquet: the Hub retu")
