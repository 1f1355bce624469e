"""Where DuckDB puts what memory can't hold."""

from __future__ import annotations

from functools import cache

from curate import scratch
from curate.errors import CurateError


@cache
def spill_folder() -> str:
    """A folder that only this user reads; it goes when the process ends (see `curate.scratch`).

    DuckDB's own choice is a folder where the user happens to be, which everybody reads. Empty,
    which keeps DuckDB to memory, where no temporary folder can be written: a full disk, or one
    that is read-only.
    """
    try:
        return str(scratch.fresh("spill"))
    except CurateError:
        return ""
