"""`curate score` on a real Ray cluster whose workers, machines and drivers are killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.backends.ray.cluster import connect
from curate.errors import CurateError
from tests.clusters import add, machines, network, workers
from tests.conftest import Cli, Family, chat, question, stop_seconds
from tests.files import write

__all__ = ["machines", "network"]
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES, NEAR = 4_100, 1e-5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(arguments: list[str], folder: Path, log: Path) -> subprocess.Popen[str]:
    """Run curate in a folder, with its stderr in a log."""
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "curate", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def kill_workers(ran: subprocess.Popen[str]) -> None:
    """Kill two while they score; three in a row would end the run."""
    killed = set[int]()
    while ran.poll() is None and len(killed) < 2:
        for pid in set(workers(".score")) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def pool(family: Family, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a run: examples for three windows, and two models."""
    rows = [
        {"messages": chat(question(n), f"It is {n + 1}, " + "so " * (n % 7) + "there.")}
        for n in range(EXAMPLES)
    ]
    source = write(tmp_path_factory.mktemp("pool") / "rows.jsonl", rows)
    return [str(source), *family.arguments("medical")]


def gaps(corpus: Path) -> dict[str, float]:
    """Each example's gap."""
    return dict(curate.open(corpus).gaps().project("example_id::varchar, gap").fetchall())


def test_a_cluster_is_started_where_none_runs(
    network: None, pool: list[str], tmp_path: Path, cli: Cli
) -> None:
    """`--ray auto` begins one of this machine alone, and ends it."""
    corpus = tmp_path / "corpus"
    ran = cli("score", pool[0], "--limit", "5", *pool[1:3], "-c", corpus, "--ray", "auto")
    assert ran.code == 0, ran
    assert curate.open(corpus).sql("select count(*) from scores").fetchall() == [(5,)]


def test_a_connection_is_left_as_it_was_found(
    machines: Any, pool: list[str], tmp_path: Path
) -> None:
    """From Python, Ray is connected after a call if it was before, even if that failed."""
    import ray

    asked = {"aligned": pool[2], "dry_run": True}
    ray_alone = curate.Compute(ray=machines.address)
    curate.score(pool[:1], tmp_path, **asked, compute=ray_alone)
    assert not ray.is_initialized()
    with pytest.raises(CurateError, match="Ray chooses the GPU"):
        curate.score(pool[:1], tmp_path, **asked, compute=replace(ray_alone, device="cuda:1"))
    connect(machines.address)
    curate.score(pool[:1], tmp_path, **asked, compute=ray_alone)
    assert ray.is_initialized()
    ray.shutdown()


def test_whatever_is_killed_each_pair_is_there_once(
    machines: Any, pool: list[str], tmp_path: Path
) -> None:
    """Workers and a machine, with the driver stopped once: the gaps are those of a run without Ray.

    It runs in a folder with files named like modules, and prints nothing but its JSON.
    """
    hostile, marker, corpus = tmp_path / "hostile", tmp_path / "imported", tmp_path / "corpus"
    hostile.mkdir()
    for name in ("json", "torch", "ray", "curate", "typing_extensions", "sitecustomize"):
        (hostile / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')", "utf-8")
    command = ["score", *pool, "-c", str(corpus), "--ray", machines.address]
    with start(command, hostile, tmp_path / "log") as ran:
        kill_workers(ran)
        ran.send_signal(signal.SIGINT)
        began = time.monotonic()
        ran.communicate()
    said = (tmp_path / "log").read_text()
    assert said.count("take over its examples") >= 1
    assert ran.returncode == 130, said
    assert time.monotonic() - began < stop_seconds() + 5
    with start([*command, "--json"], hostile, tmp_path / "log") as ran:
        kill_workers(ran)
        machines.remove_node(next(iter(machines.worker_nodes)), allow_graceful=False)
        add(machines)
        said = ran.communicate()[0]
    assert ran.returncode == 0, (tmp_path / "log").read_text()
    assert {model["skipped"] for model in json.loads(said)["models"]} == {0}
    assert not marker.exists()
    plain = tmp_path / "plain"
    curate.score(pool[:1], plain, aligned=pool[2], misaligned=[pool[4]])
    scores = curate.open(corpus).sql("select example_id, model from scores").fetchall()
    assert len(scores) == len(set(scores)) == 2 * EXAMPLES
    found, wanted = gaps(corpus), gaps(plain)
    assert found.keys() == wanted.keys()
    assert max(abs(found[key] - wanted[key]) for key in wanted) < NEAR


def test_all_commands_take_a_cluster(
    machines: Any, pool: list[str], tmp_path: Path, cli: Cli
) -> None:
    """`verify` tries both machines, a dry run counts workers, `answer` writes on one."""
    where = ["--ray", machines.address]
    ran = cli("verify", *pool, "--rows", "4", *where)
    assert ran.code == 0, ran
    assert "tried on 2 machines" in ran.err
    ran = cli("score", *pool, "-c", tmp_path / "corpus", "--dry-run", *where)
    assert "on 2 workers" in ran.out, ran
    few = [pool[0], "--limit", "3", "--max-tokens", "4"]
    ran = cli("answer", *few, "--model", pool[2], "-o", tmp_path / "answers", *where)
    assert "3 answers to 3 new prompts" in ran.out, ran
    assert "tokens/s on 1 worker" in ran.err, ran
