"""Where vLLM's engines run: the GPUs of each, and the environment of its process."""

from __future__ import annotations

import os

from curate.backends import Compute
from curate.backends.weights import choose_device
from curate.errors import CurateError


def environment(compute: Compute, devices: str | None) -> dict[str, str]:
    """What the child finds in its environment beside ours."""
    extra = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    if choose_device(compute.device).type == "cpu":
        extra["TORCHDYNAMO_DISABLE"] = "1"  # or the first batch waits for a C++ compiler
        # All cores, and as many threads as OMP_NUM_THREADS says; vLLM would leave one core idle.
        extra["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # The child is the engine's process there: two more would only take longer to start.
        extra["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    given = {key: os.environ.get(key, value) for key, value in extra.items()}
    return given if devices is None else {**given, "CUDA_VISIBLE_DEVICES": devices}


def devices_of_engines(compute: Compute) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each engine; None leaves it as it is."""
    engine, device = compute.engine, choose_device(compute.device)
    if device.type != "cuda":
        return [None] * engine.data_parallel
    there = _visible()
    if device.index is not None:
        there = [there[device.index]]
    size, wanted = engine.tensor_parallel, engine.tensor_parallel * engine.data_parallel
    if wanted > len(there):
        raise CurateError(
            f"--tensor-parallel {size} times --data-parallel {engine.data_parallel} needs "
            f"{wanted} GPUs, and {len(there)} can be used here"
        )
    if engine.data_parallel == 1 and device.index is None:
        return [None]
    return [",".join(there[n : n + size]) for n in range(0, wanted, size)]


def spare_gpus(compute: Compute) -> str | None:
    """What to say where one GPU of several is used, and nobody asked for that."""
    engine = compute.engine
    device = choose_device(compute.device)
    asked = device.index is not None or any("parallel" in name for name in engine.args)
    if device.type != "cuda" or asked or engine.tensor_parallel * engine.data_parallel != 1:
        return None
    count = len(_visible())
    return f"1 of {count} GPUs is used: --data-parallel {count} uses all" if count > 1 else None


def _visible() -> list[str]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
