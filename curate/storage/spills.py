"""Where DuckDB puts what memory can't hold."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from curate.storage import parts

_NAME = "curate-spill"


@cache
def spill_folder() -> Path:
    """A folder that only this user reads, below the system's temporary one (`$TMPDIR`).

    DuckDB's own choice is a folder where the user happens to be, which everybody reads. It goes
    when the process ends; what killed processes left is removed first.
    """
    parent = Path(tempfile.gettempdir())
    parts.remove_left_behind(parent / _NAME)
    folder = parts.own_folder(parent / _NAME)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
