"""Files that are not finished, by their names, and who may remove them: only what is said here.

`.tmp-PROCESS.MACHINE.MARK-NAME` is being written and will be NAME; `.old-PROCESS.MACHINE.MARK-NAME`
is a folder that NAME takes the place of. MACHINE is a container of its own where process numbers
are; MARK is drawn by each process. A process removes its own; a killed one leaves them to

- whoever writes the same NAME next (`put_back`, then `clear`): those of dead processes of this
  machine. A folder that was set aside goes back where NAME is missing, and else is removed.
- the writer of a corpus, who holds its lock (`sweep`): all in the corpus's own folders, where
  nobody else writes. Beside `curate.json` others may, so there only those of its own files.

A link is removed, never what it names. Finished parts are removed by `parts.remove_part` alone.
"""

from __future__ import annotations

import glob
import os
import platform
import secrets
import shutil
import sys
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from curate.errors import CurateError

TEMPORARY = ".tmp-"
_ASIDE = ".old-"
_OWN = ("-curate.json", "-corpus.duckdb", "-corpus.duckdb.wal", "-.writer.json")


def temporary(path: Path) -> Path:
    """Where this process writes what will be `path`."""
    return path.with_name(f"{TEMPORARY}{_tag()}-{path.name}")


def aside(path: Path) -> Path:
    """Where this process puts the folder whose place a new one takes."""
    return path.with_name(f"{_ASIDE}{_tag()}-{path.name}")


def put_back(path: Path) -> None:
    """Give a folder its name again that was set aside, where none has taken it."""
    for left in _left_behind(path, _ASIDE):
        if not os.path.lexists(path):
            with suppress(OSError):  # then it stays aside
                left.rename(path)


def clear(path: Path) -> None:
    """Remove what killed processes of this machine, or this one, left of `path`."""
    for left in _left_behind(path, TEMPORARY):
        _remove(left)
    if os.path.lexists(path):
        for left in _left_behind(path, _ASIDE):
            _remove(left)


def sweep(root: Path) -> None:
    """Remove what a killed writer left in a corpus. Hold its lock.

    Raises:
        CurateError: one of the corpus's folders is a link, which leads to somebody else's files.
    """
    folders = [root / "examples", root / "skipped", root / "scores", *(root / "scores").glob("*")]
    for folder in folders:
        if folder.is_symlink():
            raise CurateError(
                f"{folder}: is a link, and a run writes into folders of the corpus alone; put the "
                "folder itself here (the corpus as a whole may be a link)"
            )
    lefts = [left for folder in folders for left in folder.glob(f"{TEMPORARY}*")]
    lefts += [left for left in root.glob(f"{TEMPORARY}*") if left.name.endswith(_OWN)]
    for left in lefts:
        _remove(left)


def _tag() -> str:
    """This process, as a temporary file's name says it: number, machine and mark."""
    return f"{os.getpid()}.{_machine()}.{_mark()}"


@cache
def _machine() -> str:
    """Where our process's number is its own: a machine, or a container with numbers of its own.

    Containers may share their name and a volume, and each have a process 1.
    """
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # only Linux has such containers
        numbers = 0
    return f"{zlib.crc32(f'{platform.node()} {numbers}'.encode()):08x}"


@cache
def _mark() -> str:
    """Ours alone, even if the rest is another's too."""
    return secrets.token_hex(4)


def _left_behind(path: Path, start: str) -> list[Path]:
    """What dead processes of this machine, or this process, left of `path`."""
    found = path.parent.glob(f"{start}*-{glob.escape(path.name)}")
    return [left for left in found if _is_dead(left.name.removeprefix(start), path.name)]


def _is_dead(tagged: str, name: str) -> bool:
    """Whether this is a tag before `name`, of a process of this machine that is gone or this."""
    tag = tagged.removesuffix(f"-{name}")
    pid, machine, *_ = [*tag.split("."), ""]
    return tag == _tag() or (machine == _machine() and pid.isdecimal() and not _lives(int(pid)))


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # pragma: no cover - there, asking would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)
