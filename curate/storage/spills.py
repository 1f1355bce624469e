"""Where DuckDB puts what memory can't hold."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from curate.storage import leftovers

_NAME = "curate-spill"


@cache
def spill_folder() -> str:
    """A folder that only this user reads, below the system's temporary one (`$TMPDIR`).

    DuckDB's own choice is a folder where the user happens to be, which everybody reads. It goes
    when the process ends; what killed processes left is removed first. Empty, which keeps DuckDB
    to memory, where no temporary folder can be written: a full disk, or one that is read-only.
    """
    try:
        place = Path(tempfile.gettempdir()) / _NAME
        leftovers.clear(place)
        folder = leftovers.own_folder(place)
    except OSError:
        return ""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder)
