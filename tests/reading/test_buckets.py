"""Sources in a bucket are read as those of this disk, and what is wrong there is one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.reading.examples import read
from curate.reading.sources import resolve, rows
from tests.conftest import Cli, fails
from tests.files import CHATS, PACKINGS, write
from tests.s3 import KEYS, S3
from tests.s3 import s3 as s3
from tests.s3 import server as server


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_files_in_a_bucket_read_as_here(kind: str, s3: S3, tmp_path: Path) -> None:
    """Any format and compression, with the same rows and positions."""
    paths = [write(tmp_path / f"x{kind}{packing}", CHATS) for packing in PACKINGS]
    s3.put(tmp_path, "deep/")
    for path in paths:
        (theirs,), (ours,) = resolve([f"s3://box/deep/{path.name}"]), resolve([str(path)])
        assert list(rows(theirs)) == list(rows(ours))


def test_folders_and_globs_in_a_bucket(s3: S3, tmp_path: Path) -> None:
    """A folder, the whole bucket or a glob means its data files."""
    for name in ("c.csv", ".hidden.csv", "d [1].jsonl"):
        write(tmp_path / name, CHATS)
    (tmp_path / "README.md").write_text("A set.")
    s3.put(tmp_path, "d/b/")
    s3.ask("PUT", "box/d/a.jsonl", b"")
    for asked, found in (
        ("s3://box", ["d/a.jsonl", "d/b/c.csv", "d/b/d [1].jsonl"]),
        ("s3://box/d/b/", ["d/b/c.csv", "d/b/d [1].jsonl"]),
        ("s3://box/d/**/*.jsonl", ["d/a.jsonl", "d/b/d [1].jsonl"]),
        ("s3://box/d/b/d [1].jsonl", ["d/b/d [1].jsonl"]),
    ):
        assert [each.name for each in resolve([asked])] == [f"s3://box/{name}" for name in found]


def test_what_curate_wrote_to_a_bucket(s3: S3, tmp_path: Path) -> None:
    """Exports and corpora are no sources unless they are named; a folder of answers is one."""
    text = write(tmp_path / "a.jsonl", CHATS).read_bytes()
    for name in ("a", "mix", "e/x", "made/train", "corpus/examples/b", "new/1", "new/2"):
        s3.ask("PUT", f"box/{name}.jsonl", text)
    s3.ask("PUT", "box/mix.jsonl.manifest.json", b"{}")
    s3.ask("PUT", "box/e/manifest.json", b"{}")  # somebody else's
    s3.ask("PUT", "box/made/manifest.json", b'{"curate": "1"}')
    s3.ask("PUT", "box/corpus/head.json", b'{"head_version": 1}')
    s3.ask("PUT", "box/new/answers.manifest.json", b"{}")
    wanted = [f"s3://box/{name}.jsonl" for name in ("a", "e/x", "new/1", "new/2")]
    assert [each.name for each in resolve(["s3://box/**/*.jsonl"])] == wanted
    for asked in ("s3://box/made", "s3://box/corpus", "s3://box/mix*"):
        with pytest.raises(CurateError, match="has only files that curate wrote"):
            resolve([asked])
    (source,) = resolve(["s3://box/new"])
    assert source.name == "s3://box/new"
    assert len(list(rows(source))) == 2 * len(CHATS)


def test_a_limit_reads_the_beginning(s3: S3, tmp_path: Path) -> None:
    """Of a large file only some blocks are fetched, and a cut connection is made again."""
    text = write(tmp_path / "x.jsonl", CHATS).read_bytes()
    s3.ask("PUT", "box/x.jsonl", text + b"\n" * (40 << 20))
    s3.cut, s3.times = "GET /box/x.jsonl", 2
    ((examples, _),) = read(["s3://box/x.jsonl"], limit=1)
    assert examples.num_rows == 1
    assert 1 <= sum("GET /box/x.jsonl" in line for line in s3.log) <= 6


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://box/none.jsonl", "no such file"),
        ("s3://box/*.jsonl", "matches no file"),
        ("s3://nobox/x.jsonl", "no such bucket"),
        ("s3://nobox/*", "no such bucket"),
    ],
)
def test_what_is_not_there(address: str, said: str, s3: S3) -> None:
    """A file, a match or a bucket."""
    with pytest.raises(CurateError, match=said) as caught:
        resolve([address])
    assert str(caught.value).startswith(address)


def test_no_way_in(s3: S3, cli: Cli, monkeypatch: pytest.MonkeyPatch, scored: Path) -> None:
    """No credentials, refused ones and silence: one line each, within seconds, without a secret."""
    commands = (
        ("score", "s3://box/x.jsonl", "-c", "c", "--aligned", "x"),
        ("push", scored, "s3://box/c"),
        ("export", "-c", scored, "--top", "3", "-o", "s3://box/x.jsonl"),
    )
    s3.require_keys(True)
    for command in commands:
        ran = cli(*command)
        fails(ran, "refused (", "AWS_SECRET_ACCESS_KEY")
        assert not any(value in ran.err for value in KEYS.values())
    s3.require_keys(False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fails(cli(*commands[0]), "no credentials were found", "AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for command in commands:
        fails(cli(*command), "no credentials were found", "AWS_SKIP_SIGNATURE")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for command in commands:
        began = time.monotonic()
        fails(cli(*command), "http://127.0.0.1:9 doesn't answer")
        assert time.monotonic() - began < 30
    fails(cli("push", scored, "s3://key:secret@box/c"), "s3://...", "contains a key")
