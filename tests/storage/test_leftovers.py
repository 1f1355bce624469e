"""What killed processes leave, and who may remove what: of a corpus, of outputs, of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import curate
from curate.backends.vllm.processes import Child
from curate.corpus.corpus import Corpus
from curate.corpus.integrity import check
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.export.target import Target
from curate.selection.recipe import Recipe
from curate.storage import leftovers, parts
from curate.storage.schema import SKIPPED
from tests.conftest import Cli
from tests.corpora import corpus


@pytest.fixture
def made(tmp_path: Path) -> Corpus:
    """Four examples under an aligned and a misaligned model."""
    nlls = {"base": [1.0] * 4, "bad": [4.0, 3.0, 2.0, 1.5]}
    return corpus(tmp_path / "c", ["one", "two", "three", "four"], nlls)


def killed(code: str, *arguments: Path) -> None:
    """Run Python that kills itself."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr


# Kills itself before the second rename: the old export is set aside, the new has no name yet.
BETWEEN = """
import os, signal, sys, pathlib
import curate
from curate.export.target import Target
from curate.selection.recipe import Recipe
rename = pathlib.Path.rename
def die(path, target):
    if path.name.startswith(".tmp-"):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)
pathlib.Path.rename = die
corpus = curate.open(sys.argv[1])
curate.export(corpus, sys.argv[2], Recipe(top=3), Target(trainer="trl"), force=True)
"""


def test_an_export_that_was_set_aside_comes_back(made: Corpus, tmp_path: Path) -> None:
    """A replacement that fails after one that was killed leaves the old export, not nothing."""
    output = tmp_path / "set"
    curate.export(made, output, Recipe(top=2), Target(trainer="trl"))
    old = {file.name: file.read_bytes() for file in output.iterdir()}
    killed(BETWEEN, made.path, output)
    assert not output.exists()

    with pytest.raises(CurateError, match="set: exists; choose another name"):
        curate.export(made, output, Recipe(top=3), Target(trainer="trl"))
    assert {file.name: file.read_bytes() for file in output.iterdir()} == old

    killed(BETWEEN, made.path, output)
    with pytest.raises(RuntimeError), parts.atomic_folder(output) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert {file.name: file.read_bytes() for file in output.iterdir()} == old
    assert {each.name for each in tmp_path.iterdir()} == {"c", "set"}

    killed(BETWEEN, made.path, output)
    curate.export(made, output, Recipe(top=3), Target(trainer="trl"), force=True)
    assert (output / "train.jsonl").read_text().count("\n") == 3
    assert {each.name for each in tmp_path.iterdir()} == {"c", "set"}


def test_a_stop_between_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C raises no OSError, and may come there as anywhere."""
    output = tmp_path / "set"
    output.mkdir()
    rename = Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if path.name.startswith(leftovers.TEMPORARY):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt), parts.atomic_folder(output):
        pass
    assert list(tmp_path.iterdir()) == [output]


REWRITING = """
import os, signal, sys, pathlib
from curate.storage import leftovers, parts
from curate.corpus.writer import open_for_writing
parts.remove_part = lambda part: os.kill(os.getpid(), signal.SIGKILL)
with open_for_writing(pathlib.Path(sys.argv[1])) as writer:
    writer._skips._drop(sys.argv[2])
"""


@pytest.mark.parametrize("condition", ["row = 1", "true"], ids=["one row", "every row"])
def test_a_part_of_skips_rewritten_halfway(condition: str, made: Corpus, cli: Cli) -> None:
    """Old and new stand side by side: no damage, none counts twice, the next writer undoes it."""
    skips = [{"source": "s", "row": n, "reason": "r"} for n in (1, 2)]
    with open_for_writing(made.path) as writer:
        writer.add_skipped(pa.Table.from_pylist(skips, schema=SKIPPED))
    (part,) = parts.list_parts(made.path / "skipped")
    killed(REWRITING, made.path, Path(condition))
    assert len(parts.list_parts(made.path / "skipped")) == 2
    assert cli("status", "--verify", "-c", made.path).code == 0
    with open_for_writing(made.path):
        assert parts.list_parts(made.path / "skipped") == [part]
    assert Corpus(made.path).sql("select row from skipped order by row").fetchall() == [(1,), (2,)]
    assert check(Corpus(made.path)) == []


def test_parts_of_skips_that_only_share_a_number_stay(made: Corpus) -> None:
    """Rows that no other part holds are never removed."""
    for row in (1, 2):
        table = pa.Table.from_pylist([{"source": "s", "row": row, "reason": "r"}], schema=SKIPPED)
        with open_for_writing(made.path) as writer:
            writer.add_skipped(table)
    _, second = parts.list_parts(made.path / "skipped")
    second.rename(second.with_name(second.name.replace("part-000001", "part-000000")))
    with open_for_writing(made.path):
        assert len(parts.list_parts(made.path / "skipped")) == 2
    assert Corpus(made.path).sql("select row from skipped order by row").fetchall() == [(1,), (2,)]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_only_files_are_parts(kind: str, made: Corpus) -> None:
    """A pipe would be waited for, a link leads elsewhere: neither is opened, each is named."""
    (part,) = parts.list_parts(made.path / "examples")
    odd = part.with_name("part-000001-0123456789abcdef.parquet")
    make = {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(part), "folder": Path.mkdir}
    make[kind](odd)
    command = [sys.executable, "-m", "curate", "status", "--verify", "-c", str(made.path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert parts.list_parts(made.path / "examples") == [part]
    (found,) = check(made)
    assert (found.path, found.reason) == (f"examples/{odd.name}", "is no file")


@pytest.mark.parametrize("folder", ["examples", "skipped", "scores", "scores/zzz"])
def test_a_writer_follows_no_link(folder: str, made: Corpus, tmp_path: Path) -> None:
    """A corpus's folder that is a link is refused, and nothing behind it is touched."""
    behind = tmp_path / "work"
    behind.mkdir()
    (behind / f"{leftovers.TEMPORARY}mine").write_text("precious")
    if (made.path / folder).exists():
        (made.path / folder).rename(tmp_path / "away")
    (made.path / folder).symlink_to(behind)
    before = (made.path / "curate.json").read_bytes()
    wanted = rf"{folder}: is a link"
    with pytest.raises(CurateError, match=wanted), open_for_writing(made.path):
        pass
    assert [each.name for each in behind.iterdir()] == [f"{leftovers.TEMPORARY}mine"]
    assert (made.path / "curate.json").read_bytes() == before


def test_a_link_is_removed_and_not_what_it_names(made: Corpus, tmp_path: Path) -> None:
    """Where a temporary file would lie, a link goes; the folder behind it stays."""
    behind = tmp_path / "work"
    behind.mkdir()
    (behind / "mine").write_text("precious")
    link = made.path / "examples" / f"{leftovers.TEMPORARY}x"
    link.symlink_to(behind)
    with open_for_writing(made.path):
        assert not link.is_symlink()
    assert (behind / "mine").read_text() == "precious"


def test_no_temporary_folder(made: Corpus, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be written, as in a read-only container, what fits the memory still works."""
    import tempfile

    from curate.system import scratch
    from curate.system.sql import spill_folder

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp', '/var/tmp']")

    for each in (spill_folder, scratch._own):
        each.cache_clear()
    monkeypatch.setattr(tempfile, "gettempdir", none)
    try:
        with pytest.raises(CurateError, match=r"no temporary folder can be written \(No usable"):
            Child("tests.children", "kind", {})
        assert cli("sql", "select count(*) from gaps", "-c", made.path).code == 0
        with open_for_writing(made.path):
            pass
        assert not list(made.path.glob("*.tmp"))
    finally:
        for each in (spill_folder, scratch._own):
            each.cache_clear()


def test_containers_of_one_name_leave_each_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may share a volume and the number 1: names differ, and nobody takes another's."""
    output = tmp_path / "o.jsonl"

    def elsewhere(machine: str) -> Path:
        made = leftovers.temporary(output)
        monkeypatch.setattr(leftovers, "_machine", lambda: machine)
        leftovers._mark.cache_clear()
        made.write_text("half")
        return made

    here = leftovers._machine()
    first, second = elsewhere("00000001"), elsewhere(here)
    assert first != second
    third = leftovers.temporary(output)
    third.write_text("mine")
    leftovers.clear(output)
    assert {first, second} == set(tmp_path.iterdir())


def test_numbers_of_processes_are_their_containers() -> None:
    """A process in a container of its own has another machine than one outside."""
    code = "from curate.storage import leftovers; print(leftovers._machine())"
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no containers can be made here (unshare)")
    inside, outside = (
        subprocess.run([*before, sys.executable, "-c", code], capture_output=True, text=True).stdout
        for before in (apart, [])
    )
    assert len(inside) == len(outside) == 9
    assert inside != outside


def which(path: Path) -> tuple[int, int, int]:
    """What stands there; following a link changes its times."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mode


DEVICES = {
    "pipe": lambda folder: os.mkfifo(folder / "o.jsonl"),
    "link to a device": lambda folder: (folder / "o.jsonl").symlink_to("/dev/null"),
    "link to a folder": lambda folder: (folder / "o.jsonl").symlink_to(folder),
}


@pytest.mark.parametrize("kind", DEVICES)
def test_an_output_that_is_no_file_is_not_replaced(
    kind: str, made: Corpus, cli: Cli, tmp_path: Path
) -> None:
    """As root, /dev/null would be a file from then on; and a pipe's reader would wait."""
    DEVICES[kind](tmp_path)
    output = tmp_path / "o.jsonl"
    before = which(output)
    for command in (["sql", "from gaps"], ["export", "--top", "1"], ["report"]):
        ran = cli(*command, "-c", made.path, "-o", output, "--force")
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "is no plain file" in ran.err or "is a folder; name a file" in ran.err
    assert which(output) == before
    assert set(tmp_path.iterdir()) == {made.path, output}


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_device_is_no_output(path: str, made: Corpus, cli: Cli) -> None:
    """Nor what leads to a stream that happens to be a file."""
    if not Path(path).exists():
        pytest.skip(f"{path} is not there")
    before = which(Path(path))
    with pytest.raises(CurateError, match="is no plain file"):
        parts.refuse_special(Path(path))
    ran = cli("sql", "from gaps", "-c", made.path, "-o", path, "--format", "csv")
    assert (ran.code, "is no plain file" in ran.err) == (1, True)
    assert which(Path(path)) == before
