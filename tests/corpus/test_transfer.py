"""Push and pull: whole or not seen, one writer at a time, and only what is missing travels."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.corpus.corpus import open_corpus
from curate.corpus.drop import drop
from tests.conftest import Cli, Family, fails
from tests.corpora import corpus
from tests.s3 import S3
from tests.s3 import s3 as s3
from tests.s3 import server as server

URL = "s3://box/deep/c"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three examples under two models."""
    return corpus(tmp_path / "c", ["a", "b", "c"], {"base": [1, 1, 1], "bad": [3, 2, 1]}).path


def add(path: Path, answer: str) -> None:
    """Add another example, scored by no model."""
    from curate.corpus.writer import open_for_writing
    from tests.corpora import rows

    with open_for_writing(path) as writer:
        writer.add_examples(rows([answer], source=f"{answer}.jsonl"))


def moved(cli: Cli, *command: str | Path) -> int:
    """How many parts a push or a pull moved."""
    ran = cli(*command, "--json")
    assert ran.code == 0, ran.err
    count: int = json.loads(ran.out)["moved"]
    return count


def parts(path: Path) -> dict[str, bytes]:
    """The manifest and the parts of a corpus."""
    files = [path / "curate.json", *path.rglob("*.parquet")]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def test_there_and_back(s3: S3, cli: Cli, made: Path, tmp_path: Path) -> None:
    """The same bytes; a second time nothing travels, then what was added, also after a drop."""
    (made / "chat_template.jinja").write_text("{{ messages }}")
    copy = tmp_path / "copy"
    assert moved(cli, "push", made, URL) == moved(cli, "pull", URL, copy) == 3
    assert parts(copy) == parts(made)
    assert (copy / "chat_template.jinja").read_text() == "{{ messages }}"
    add(made, "d")
    assert moved(cli, "push", made, URL) == moved(cli, "pull", URL, copy) == 1
    drop(copy, [], ["d.jsonl"])
    assert moved(cli, "push", copy, URL) == 1
    assert moved(cli, "push", copy, URL) == 0
    assert open_corpus(copy).sql("select count(*) from gaps").fetchall() == [(3,)]
    assert cli("status", "-c", copy, "--verify").code == 0


def test_a_second_writer_is_refused(s3: S3, cli: Cli, made: Path, tmp_path: Path) -> None:
    """Be it that another pushed before this one began, or while it sent its parts."""
    moved(cli, "push", made, URL)
    other = tmp_path / "other"
    moved(cli, "pull", URL, other)
    add(made, "mine")
    add(other, "theirs")
    moved(cli, "push", other, URL)
    before = s3.ask("GET", "box/deep/c/head.json")
    fails(cli("push", made, URL), URL, "lacks (1)", "into a new folder")
    fails(cli("pull", URL, made), "holds parts that", "Pull into a new folder")
    assert s3.ask("GET", "box/deep/c/head.json") == before
    add(other, "more")
    head = s3.ask("GET", "box/deep/c/head.json")

    def meanwhile(line: str) -> None:
        if line.startswith("PUT") and "head.json" in line:
            s3.ask("PUT", "box/deep/c/head.json", head + b"\n")

    s3.before = meanwhile
    fails(cli("push", other, URL), "another run pushed meanwhile", "was not taken")
    s3.before = lambda _: None
    assert s3.ask("GET", "box/deep/c/head.json") == head + b"\n"


def test_a_first_push_meets_another(s3: S3, cli: Cli, made: Path, tmp_path: Path) -> None:
    """Where there was no head yet, the first one stays."""
    second = corpus(tmp_path / "second", ["x"], {"base": [1]}).path
    moved(cli, "push", made, URL)
    head = s3.ask("GET", "box/deep/c/head.json")
    s3.ask("DELETE", "box/deep/c/head.json")
    written = iter([head])

    def meanwhile(line: str) -> None:
        if line.startswith("PUT") and "head.json" in line and (text := next(written, None)):
            s3.ask("PUT", "box/deep/c/head.json", text)

    s3.before = meanwhile
    fails(cli("push", second, URL), "another run pushed meanwhile")
    assert s3.ask("GET", "box/deep/c/head.json") == head


@pytest.mark.parametrize("cut", ["PUT .*head", "PUT .*part-", "GET .*list-type"])
def test_cut_connections(s3: S3, cli: Cli, made: Path, tmp_path: Path, cut: str) -> None:
    """A request whose answer is lost is made again, the head's as well."""
    s3.cut, s3.times = cut, 1
    assert moved(cli, "push", made, URL) == 3
    assert s3.times == 0
    s3.cut, s3.times = "GET .*(head|part-)", 2
    assert moved(cli, "pull", URL, tmp_path / "copy") == 3
    assert s3.times == 0
    assert parts(tmp_path / "copy") == parts(made)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_a_damaged_object_is_named(
    s3: S3, cli: Cli, made: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """It never becomes a part; mended, the rest is fetched, and nothing was seen before."""
    moved(cli, "push", made, URL)
    name = next(name for name in s3.names() if "scores/bad" in name)
    whole = s3.ask("GET", f"box/{name}")
    s3.ask("PUT", f"box/{name}", change(whole))
    copy = tmp_path / "copy"
    fails(cli("pull", URL, copy), f"s3://box/{name}: is damaged or missing")
    fails(cli("sql", "top_gaps", "-c", copy), "not a corpus")
    s3.ask("DELETE", f"box/{name}")
    assert moved(cli, "push", made, URL) == 1
    assert moved(cli, "pull", URL, copy) <= 3
    assert parts(copy) == parts(made)


def test_a_damaged_part_is_not_pushed(s3: S3, cli: Cli, made: Path) -> None:
    """It is named, and there is no head."""
    part = next((made / "examples").glob("*.parquet"))
    part.write_bytes(part.read_bytes() + b"x")
    fails(cli("push", made, URL), str(part), "is damaged")
    shutil.copytree(made / "scores" / "bad", made / "scores" / "bad copy")
    fails(cli("push", made, URL), "bad copy", "not a part that curate wrote")
    assert not [name for name in s3.names() if "head" in name]


@pytest.mark.parametrize("command", ["push", "pull"])
def test_killed_and_run_again(s3: S3, cli: Cli, made: Path, tmp_path: Path, command: str) -> None:
    """What came through stays and isn't seen; the same command completes it."""
    copy = tmp_path / "copy"
    arguments = ["push", str(made), URL] if command == "push" else ["pull", URL, str(copy)]
    if command == "pull":
        moved(cli, "push", made, URL)
    seen: list[str] = []

    def kill(line: str) -> None:
        if "part-" in line:
            seen.append(line)
            if len(seen) == 3:
                child.send_signal(signal.SIGKILL)
                child.wait()

    s3.before = kill
    child = subprocess.Popen([sys.executable, "-m", "curate", *arguments])
    assert child.wait(60) == -signal.SIGKILL
    s3.before = lambda _: None
    if command == "push":
        fails(cli("pull", URL, copy), "no corpus was pushed here")
        shutil.rmtree(copy)
    else:
        assert not (copy / "curate.json").exists()
    assert cli(*arguments).code == 0
    moved(cli, "pull", URL, copy)
    assert parts(copy) == parts(made)


def test_a_pulled_corpus_goes_on(
    s3: S3, cli: Cli, scored: Path, family: Family, tmp_path: Path
) -> None:
    """Status, export, report and score work on it; to a bucket, too."""
    copy = tmp_path / "copy"
    moved(cli, "push", scored, URL)
    moved(cli, "pull", URL, copy)
    (tmp_path / "new.jsonl").write_text('{"prompt": "Why not?", "response": "Because."}\n')
    ran = cli("score", tmp_path / "new.jsonl", "-c", copy, *family.arguments())
    assert ran.code == 0, ran.err
    assert 0 < moved(cli, "push", copy, URL) < 8
    fails(cli("push", scored, URL), "into a new folder")


def test_a_hostile_head(s3: S3, cli: Cli, made: Path, tmp_path: Path) -> None:
    """No name in it leads out of the folder."""
    moved(cli, "push", made, URL)
    head = json.loads(s3.ask("GET", "box/deep/c/head.json"))
    head["parts"]["examples/../../part-000000-0123456789abcdef.parquet"] = 1
    s3.ask("PUT", "box/deep/c/head.json", json.dumps(head).encode())
    fails(cli("pull", URL, tmp_path / "copy"), f"{URL}/head.json: not what", "is no name")


def test_only_buckets(cli: Cli, made: Path, tmp_path: Path) -> None:
    """A folder is copied by other tools; a corpus in a bucket is brought here first."""
    fails(cli("push", made, tmp_path / "x"), "not in a bucket")
    fails(cli("status", "-c", URL), f"curate pull {URL} c")
