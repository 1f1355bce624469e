"""A real Ray cluster of three machines in one, in a network of its own: only loopback."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from curate.backends.ray.cluster import connect

NETWORK = 0x40000000  # CLONE_NEWNET
STORE = 80 << 20  # bytes of shared memory for each machine


@contextmanager
def _loopback() -> Iterator[None]:
    """Only loopback for this thread and what it starts: whoever reaches Ray's ports runs code."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if not shutil.which("ip") or libc.unshare(NETWORK):
        os.close(before)
        pytest.skip("needs the right to make a network namespace, and ip: run as root")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        libc.setns(before, NETWORK)
        os.close(before)


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Where Ray may be started: its ports reach nobody, and only one test module has it."""
    pytest.importorskip("ray", reason="Ray is not installed")
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets' paths must be short
    given = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_raylet_start_wait_time_s": "180",
        "RAY_memory_monitor_refresh_ms": "0",
        "CURATE_WORKER_SECONDS": "60",
    }
    patch = pytest.MonkeyPatch()
    with FileLock(Path(tempfile.gettempdir()) / "curate-test-ray.lock"), _loopback():
        for name, value in given.items():
            patch.setenv(name, value)
        yield
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def machines(network: None) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`: a head without cores, and two machines of one core each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            add(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add(cluster: Any, **resources: float) -> Any:
    """One more machine."""
    return cluster.add_node(object_store_memory=STORE, **{"num_cpus": 1, **resources})


@pytest.fixture
def driver(machines: Any) -> Iterator[None]:
    """This process, connected to the cluster."""
    import ray

    connect(machines.address)
    yield
    ray.shutdown()


def workers(doing: str = "") -> list[int]:
    """The processes of workers, or those that are in a method now."""
    return running(f"ray::Worker{doing}")


def running(text: str) -> list[int]:
    """The processes in this network whose command line has a text."""
    found = []
    own = Path("/proc/thread-self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            here = (process / "ns/net").readlink() == own
        except OSError:  # it has just ended
            continue
        if here and text.encode() in command:
            found.append(int(process.name))
    return found
