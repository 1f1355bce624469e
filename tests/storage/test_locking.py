"""One writer at a time, and only in a corpus's folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import curate
from curate.errors import CurateError
from curate.storage.locking import locked

LOCK = """
import sys, pathlib
from curate.storage.locking import locked
try:
    with locked(pathlib.Path(sys.argv[1]), patience=0.1): pass
except Exception as error: print(error)
"""


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    """The second is told who writes, and works once the first has ended."""

    def other() -> str:
        command = [sys.executable, "-c", LOCK, str(tmp_path / "c")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with locked(tmp_path / "c"):
        assert f"another `curate score` (process {os.getpid()} on " in other()
    assert other() == ""


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused in a line: a file in the lock's place would outlive a run that is killed."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(CurateError, match=r"support locks \(flock\)\. Use a folder on another"):
        locked(tmp_path / "c").__enter__()


def test_a_folder_that_is_something_else_is_not_touched(tmp_path: Path) -> None:
    """Neither for reading nor for writing, and a file is no folder."""
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(CurateError, match="not a corpus"):
        curate.open(tmp_path)
    for path, words in (
        (tmp_path, "not empty, and not a corpus"),
        (tmp_path / "c\\q", "path with a \\\\"),
        (tmp_path / "letters.txt", "a file"),
    ):
        with pytest.raises(CurateError, match=words), locked(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
