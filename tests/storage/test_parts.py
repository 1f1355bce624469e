"""Files that are there whole or not at all, and what a killed process leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.storage import parts


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An atomic write is whole or not at all."""
    path = tmp_path / "file.txt"
    parts.write_text(path, "old")
    with pytest.raises(RuntimeError), parts.atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_that_belong_together_fail_together(tmp_path: Path) -> None:
    """A name that can't be taken is found before the first one is."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")
    paths = tmp_path / "b", tmp_path / "a"
    with pytest.raises(CurateError, match="is a folder"), parts.atomic_together(*paths) as made:
        made[1].write_text("new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """An operating system's error names the file and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CurateError, match=r"can't be written .* run the same command again"):
        parts.write_text(tmp_path / "file" / "below.txt", "text")


KILLED = """
import os, signal, sys, pathlib
from curate.storage import parts
rename = pathlib.Path.rename
def die(path, target):
    if sys.argv[2] == "between renames" and not path.name.startswith(".tmp-"):
        return rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.rename = die
with parts.atomic_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("new")
"""


@pytest.mark.parametrize("when", ["before renames", "between renames"])
def test_a_folder_survives_a_kill(when: str, tmp_path: Path) -> None:
    """The old folder is there or comes back; the next one takes its place and leaves nothing."""
    output = tmp_path / "set"
    output.mkdir()
    (output / "rows").write_text("old")
    ran = subprocess.run([sys.executable, "-c", KILLED, str(output), when])
    assert ran.returncode == -signal.SIGKILL
    assert output.exists() == (when == "before renames")
    with pytest.raises(RuntimeError), parts.atomic_folder(output):
        raise RuntimeError
    assert (output / "rows").read_text() == "old"
    with parts.atomic_folder(output) as folder:
        (folder / "rows").write_text("newer")
    assert (output / "rows").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [output]


def test_only_files_are_parts(tmp_path: Path) -> None:
    """Neither links nor folders; a folder that can't be read is no empty one."""
    folder = tmp_path / "scores"
    assert parts.list_parts(folder) == []
    folder.mkdir()
    part = folder / "part-000001-0123456789abcdef.parquet"
    part.touch()
    (folder / "part-000002-x.parquet").symlink_to(part)
    (folder / "part-000003-x.parquet").mkdir()
    assert parts.list_parts(folder) == [part]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CurateError, match="loop: can't be read"):
        parts.list_parts(tmp_path / "loop")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/proc/self/fd/1"])
def test_a_device_is_no_output(path: str) -> None:
    """Nor is what leads to a stream that happens to be a file."""
    if not Path(path).exists():
        pytest.skip(f"{path} is not there")
    with pytest.raises(CurateError, match="isn't a regular file"):
        parts.refuse_special(Path(path))
