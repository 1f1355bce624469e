"""Commands on a disk of some kilobytes: `unshare -rm python small_disk.py < jobs`.

A job is a list of steps on one new disk, which is mounted at `place`: ["size", bytes] makes it as
large as that (`ROOM` at first), ["read-only"] closes it, ["run", arguments] runs curate,
["scores"] lists what the corpus there holds. The answers come back as JSON, one a step.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from curate import open as open_corpus
from curate.cli.app import main
from curate.corpus import writer

ROOM = 64 << 20


def mount(place: Path, options: str) -> None:
    """Mount a disk in memory, or change the options of one that is there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)


def run(arguments: list[str]) -> dict[str, Any]:
    """One command in this process: its exit code, and what it printed."""
    sys.argv = ["curate", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except Exception:
            code, _ = "crash", traceback.print_exc()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def scores(corpus: Path) -> dict[str, Any]:
    """What a corpus holds, what is left of unfinished work, and the room all of it takes."""
    stored: list[Any] = []
    if (corpus / "curate.json").exists():
        query = "select example_id, model, logprob from scores order by all"
        stored = open_corpus(corpus).sql(query).fetchall()
    left = [str(path) for path in corpus.rglob(".tmp-*")]
    return {"scores": stored, "left": left, "used": used(corpus.parent)}


def used(place: Path) -> int:
    """The bytes that are taken on a disk."""
    disk = os.statvfs(place)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def one(place: Path, job: list[list[Any]]) -> list[Any]:
    """Do the steps of a job on a disk of its own."""
    answers: list[Any] = []
    mount(place, f"size={ROOM}")
    for step, *values in job:
        if step == "size":
            mount(place, f"remount,size={values[0]}")
        elif step == "read-only":
            mount(place, "remount,ro")
        elif step == "run":
            answers.append(run(values[0]))
        else:
            answers.append(scores(place / "corpus"))
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    return answers


if __name__ == "__main__":
    # A part for every score: the disk may be full at each of them.
    writer.FLUSH_SECONDS = writer.FLUSH_SHARE = 0.0
    mountpoint, jobs = json.load(sys.stdin)
    print(json.dumps([one(Path(mountpoint), job) for job in jobs]), file=sys.__stdout__)
