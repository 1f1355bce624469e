"""What bench/scoring.py measures of the machine: its rate of products, and memory."""

from __future__ import annotations

import re
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import torch

Result = TypeVar("Result")


def processor_seconds(before: dict[int, float] | None = None) -> dict[int, float]:
    """Of this process and of each below it, such as workers, since `before`: by their numbers.

    Those that have ended since are not in it.
    """
    own, before, found = psutil.Process(), before or {}, {}
    for each in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found[each.pid] = sum(each.cpu_times()[:2]) - before.get(each.pid, 0.0)
    return found


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Return the median rate of a large matrix product here and now, in FLOP/s."""
    side = 8192 if device == "cuda" else 1024
    a = torch.randn(side, side, dtype=dtype, device=device)
    rates = []
    for _ in range(9):
        wait(device)
        began = time.perf_counter()
        for _ in range(4):
            a @ a
        wait(device)
        rates.append(4 * 2 * side**3 / (time.perf_counter() - began))
    return sorted(rates)[len(rates) // 2]


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def with_peak(task: Callable[[], Result], device: str) -> tuple[Result, float]:
    """Run a task; return its result, and the most memory it took, in MiB.

    On a CPU that is the resident memory of the process that took most of it: this one or any below
    it, for curate's engine is a child and a server's a grandchild. On a GPU it is what all
    processes there took beyond what was in use before: torch knows only of its own, in this
    process. Nobody else may use the GPU meanwhile.
    """
    before, used, pause = 0, _highest, 1.0  # the system keeps the highest: a look now and then does
    if device == "cuda":
        torch.cuda.empty_cache()
        before, used, pause = _used(), _used, 0.05
    most = before
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(pause):
            most = max(most, used())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = task()
    finally:
        ended.set()
        thread.join()
    return result, (max(most, used()) - before) / 2**20


def _highest() -> int:
    """The most bytes resident at a time in this process, a child that ended, or any below it."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    most = max(resource.getrusage(who).ru_maxrss for who in whose)  # KiB, as VmHWM is
    for process in psutil.Process().children(recursive=True):
        with suppress(OSError):  # it may end meanwhile
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            most = max(most, int(found[1]) if found else 0)
    return most * 1024


def _used() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free
