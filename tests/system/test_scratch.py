"""Temporary folders go with what made them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from curate.errors import CurateError
from curate.system import scratch


def test_a_folder_goes_with_its_block_or_process(tmp_path: Path) -> None:
    """It is closed to other users while it is there, also if what runs in it fails."""
    with pytest.raises(RuntimeError), scratch.temporary("x") as folder:
        (folder / "file").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
        raise RuntimeError
    assert not folder.exists()
    code = "from curate.system import scratch; (scratch.fresh('x') / 'file').touch()"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where none can be written, as in a read-only container, a line says what to do."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(CurateError, match=r"can't create a temporary folder .*TMPDIR"):
        scratch.fresh("x")
