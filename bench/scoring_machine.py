"""What bench/scoring.py measures of the machine: its rate of products, and memory."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


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

    On a CPU that is resident memory of this process or of its largest child, for an engine is a
    child of curate's. On a GPU it is what all processes there took beyond what was in use before:
    torch knows only of its own, in this process. Nobody else may use the GPU meanwhile.
    """
    if device != "cuda":
        result = task()
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return result, max(resource.getrusage(who).ru_maxrss for who in whose) / 1024
    torch.cuda.empty_cache()
    before = most = _used()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, _used())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = task()
    finally:
        ended.set()
        thread.join()
    return result, (most - before) / 2**20


def _used() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free
