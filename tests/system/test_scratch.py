"""What lives no longer than a process: it goes with it, or with the next one if it was killed."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Family

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")

DIE = "import os, signal, sys; die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
KILLED = {
    "an unpacked file": "from curate.reading.sources import rows\n"
    "held = rows(sys.argv[1]); next(held); die()",
    "an engine's log": "from curate.backends.vllm.processes import Child\n"
    "child = Child('tests.children', 'kind', {}); child.receive(); die()",
    "a merged checkpoint": "from contextlib import ExitStack\n"
    "from curate.backends.base import Compute\n"
    "from curate.backends.vllm import engine\n"
    "from curate.models.resolve import resolve\n"
    "merge, engine.why_merged = engine.merge, lambda *_: 'it is odd'\n"
    "engine.merge = lambda *a: (merge(*a), die())\n"
    "model = resolve(*sys.argv[2:3], sys.argv[3:])[1]\n"
    "engine._weights(model, Compute(device='cpu'), print, ExitStack())",
}
NEXT = "from curate.system import scratch; print(scratch.fresh('x').parent, flush=True)"


def python(code: str, *arguments: object, folder: Path) -> subprocess.Popen[str]:
    """Run Python whose temporary files go below a folder."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": root}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("what", KILLED)
def test_what_a_killed_process_leaves_goes_with_the_next(
    what: str, family: Family, tmp_path: Path
) -> None:
    """As large as a model, it may be: nobody else would ever remove it."""
    packed = tmp_path / "rows.parquet.gz"
    pq.write_table(
        pa.table({"prompt": ["q"] * 5000, "response": ["a"] * 5000}), tmp_path / "rows.parquet"
    )
    packed.write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    folder = tmp_path / "tmp"
    folder.mkdir()
    arguments = (packed, family.aligned, family.legal)
    assert python(DIE + KILLED[what], *arguments, folder=folder).wait() == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert [each for each in left.rglob("*") if each.is_file()]
    assert python(NEXT, folder=folder).wait() == 0
    assert list(folder.iterdir()) == []


def test_what_a_living_process_holds_stays(tmp_path: Path) -> None:
    """Whoever else starts, in whatever container: a lock says that it lives, and no number."""
    with python(NEXT + "; import signal; signal.pause()", folder=tmp_path) as process:
        try:
            assert process.stdout is not None
            held = Path(process.stdout.readline().strip())
            assert python(NEXT, folder=tmp_path).wait() == 0
            assert list(tmp_path.iterdir()) == [held]
            assert [each.name[:2] for each in held.iterdir()] == ["x-"]
        finally:
            process.kill()


def test_others_folders_stay(tmp_path: Path) -> None:
    """A link in the place of such a folder is not followed, and other names are not looked at."""
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (tmp_path / ".curate-scratch-link").symlink_to(mine)
    assert python(NEXT, folder=tmp_path).wait() == 0
    assert (mine / "data").is_dir()


def test_a_merge_ends_with_its_parent(family: Family, tmp_path: Path) -> None:
    """It would else go on to fill the disk for a run that is gone."""
    merging = (
        "import sys; from pathlib import Path; from curate.backends.vllm.processes import merge\n"
        "from curate.models.resolve import resolve\n"
        "merge(resolve(sys.argv[1], [sys.argv[2]])[1], 'float32', Path(sys.argv[3]))"
    )
    merged = tmp_path / "merged"
    parent = python(merging, family.aligned, family.legal, merged, folder=tmp_path)
    began, below = time.monotonic(), list[psutil.Process]()
    while not below:
        assert parent.poll() is None
        below = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    while any(each.is_running() and each.status() != "zombie" for each in below):
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    assert not list(merged.glob("*"))
