"""Files of other file systems, and what is missing to read them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest

from curate.errors import CurateError
from curate.reading.sources import resolve, rows
from tests.files import CHATS, PACKINGS, write


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A file system in memory, empty at the end."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def names(address: str) -> list[str]:
    """What an address means."""
    return [source.name for source in resolve([address])]


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_files_elsewhere_read_as_here(
    kind: str, packing: str, memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    """Any format and compression, with the same rows and positions."""
    path = write(tmp_path / f"x{kind}{packing}", CHATS)
    memory.pipe(f"/deep/{path.name}", path.read_bytes())
    (theirs,), (ours,) = resolve([f"memory://deep/{path.name}"]), resolve([str(path)])
    assert list(rows(theirs)) == list(rows(ours))


def test_folders_and_globs_elsewhere(memory: fsspec.AbstractFileSystem) -> None:
    """A folder or a glob means its data files, as on the disk."""
    for name in ("a.jsonl", "b/c.csv", "b/.hidden.csv", "state.json", "README.md"):
        memory.pipe(f"/d/{name}", b"{}")
    assert names("memory://d") == ["memory:///d/a.jsonl", "memory:///d/b/c.csv"]
    assert names("memory://d/*/*.csv") == ["memory:///d/b/c.csv"]
    memory.pipe("/d/b/train.csv", b"")
    memory.pipe("/d/b/test.csv", b"")
    with pytest.raises(CurateError, match="which split"):
        resolve(["memory://d"])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://nothing.jsonl", "no such file"),
        ("memory://nothing/*.jsonl", "matches no file"),
        ("memory://x.txt", "unknown extension"),
        ("nosuch://x.jsonl", "Protocol not known: nosuch"),
        ("s3://bucket/x.jsonl", "pip install '.[remote]'"),
        ("gs://bucket/*.jsonl", "pip install '.[remote]'"),
        ("abfs://box/x.jsonl", "pip install '.[remote]'"),
        ("oss://bucket/x.jsonl", "Install ossfs"),
    ],
)
def test_addresses_that_lead_nowhere(
    address: str, said: str, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what is wrong; for a library that isn't installed, the command."""
    for module in ("obstore", "ossfs"):
        monkeypatch.setitem(sys.modules, module, None)
    memory.pipe("/x.txt", b"")
    with pytest.raises(CurateError) as caught:
        resolve([address])
    assert said in str(caught.value)
    assert str(caught.value).startswith(address)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_web(tmp_path: Path) -> None:
    """It is read as one of the disk."""
    pytest.importorskip("aiohttp")
    path = write(tmp_path / "x.jsonl.gz", CHATS)
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (source,) = resolve([f"http://127.0.0.1:{server.server_port}/{path.name}?key=1"])
        assert [row for _, row in rows(source)] == CHATS
        server.shutdown()


def test_a_key_in_the_address_is_not_named() -> None:
    """What comes after a web address's question mark may be a signature."""
    with pytest.raises(CurateError) as caught:
        resolve(["http://127.0.0.1:9/x.jsonl?signature=secret"])
    assert str(caught.value).startswith("http://127.0.0.1:9/x.jsonl: ")
    assert "secret" not in str(caught.value)
