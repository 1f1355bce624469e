"""Child processes that load models: started, asked over a socket, and ended with all they took."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.models.resolve import Model
from curate.system import scratch
from curate.system.stopping import held

_END_SECONDS = 10.0
_TAIL = 200_000  # characters of a log in which the cause is looked for
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|No available memory|bad_alloc|"
    r"larger than the available KV cache memory|allocation is less than requested memory for kv|"
    r"less than desired GPU memory utilization",
    re.IGNORECASE,
)
_CAUSE = re.compile(r"^(?:.* )?(?P<cause>[\w.]*(?:Error|Exception): .+)$", re.M)
_SAID_ELSEWHERE = (
    "See root cause above",
    "EngineDeadError",
    "EngineCore encountered an issue",
    "Tokenizer not available when",  # vLLM warns of it, since it needs none here
)
MEMORY_HINT = (
    "out of memory: lower --max-length or --batch-tokens, split the model with --tensor-parallel, "
    "shrink it with --quantization or --dtype, or change the engine's share with --gpu-memory "
    "(more if it has too little, less if others use the device), or keep fewer adapters there "
    "with --engine-arg max_loras=N"
)


class Child:
    """A module run by a Python of its own, with a socket to it and its output in a log file.

    It gets a session of its own: a Ctrl-C reaches only the parent, which then ends the child with
    everything that the child started.
    """

    def __init__(self, module: str, job: Any, environment: Mapping[str, str]) -> None:
        self.log = scratch.fresh("engine") / "log"
        ours, theirs = socket.socketpair()
        with theirs, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command(module, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env=surroundings(environment),
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        self._failed = False
        self.send(job)

    def send(self, message: Any) -> None:
        """Send something; that the child is gone shows in `receive`."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The child's next message; None where it has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def why(self, answer: Any) -> str:
        """Why it failed, in one line, and where its log is, which is then kept."""
        code = self._end()
        if not self._failed:
            self._failed = True
            self._keep_log()
        lines = self.log.read_text(errors="replace")[-_TAIL:].splitlines()
        text = "\n".join(line for line in lines if " INFO " not in line)
        said = getattr(answer, "reason", "")
        if _OUT_OF_MEMORY.search(said) or _OUT_OF_MEMORY.search(text):
            cause = MEMORY_HINT
        elif said and not any(mark in said for mark in _SAID_ELSEWHERE):
            cause = said
        else:
            found = [m["cause"] for m in _CAUSE.finditer(text)]
            causes = [c for c in found if not any(mark in c for mark in _SAID_ELSEWHERE)]
            ended = f"its process died (exit code {code})"
            if code is not None and code < 0:
                causes, ended = [], f"its process was ended by {signal.Signals(-code).name}"
            cause = causes[-1] if causes else ended
        if "ended by SIGKILL" in cause:  # so a machine that runs out of memory ends a process
            cause = f"{cause}, perhaps {MEMORY_HINT}"
        line = re.sub(r"\s+", " ", cause)[:500]
        return f"{line}; its log is {self.log}"

    def close(self) -> None:
        """Ask the child to end, and see to it; its log goes unless it failed."""
        self.send(None)
        self._end()
        self.connection.close()
        if not self._failed:
            self.log.unlink(missing_ok=True)

    def _keep_log(self) -> None:
        """Put it where it outlives this process; on a full disk it is lost, and the error told."""
        with suppress(OSError):
            number, kept = tempfile.mkstemp(prefix="curate-engine-", suffix=".log")
            os.close(number)
            self.log = Path(shutil.move(self.log, kept))

    def _end(self) -> int | None:
        """See that it is gone; gives back its exit code, None where it had to be killed."""
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=_END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return code


def command(module: str, *arguments: str) -> list[str]:
    """What runs a module in a Python of its own, which imports nothing from the current folder.

    That may hold data from anywhere, and in it files called like modules. See `surroundings`.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def surroundings(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours, `more`, and the places that we import from.

    A checkout need not be installed. What the child starts keeps off the current folder too.
    """
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **(more or {}), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def answering(children: Iterable[Child]) -> list[Child]:
    """Those of the children that have sent something or died, after a second at most."""
    by_connection = {child.connection: child for child in children}
    return [by_connection[c] for c in wait(by_connection, timeout=1.0)]  # type: ignore[index]


def end_with(parent: int) -> None:
    """End this process and its group once the parent is gone, however it went. For a thread."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(os.getpgid(0), signal.SIGKILL)


_MEMORY_HINT = (
    "out of memory: the whole model is in it while it is merged; give a smaller --dtype, or merge "
    "the adapter on a larger machine and name the result"
)


def merge(model: Model, dtype: str, folder: Path) -> None:
    """Write the model's weights with its adapter in them to a folder, as large as the model.

    Raises `CurateError` if the adapter does not fit, or the disk or the memory is full.
    """
    arguments = (os.getpid(), model.path, model.adapter, dtype, folder)
    child: subprocess.Popen[str] | None = None
    try:
        with held():  # a stop in the midst of it would lose hold of the process
            child = subprocess.Popen(
                command(__name__, *map(str, arguments)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=surroundings(),
                start_new_session=True,
            )
        said = child.communicate()[1]
    finally:
        if child is not None:
            child.kill()
            child.wait()
    if child.returncode:
        lines = [line for line in said.splitlines() if line.strip()]
        why = lines[-1] if lines else f"its process died (exit code {child.returncode})"
        if child.returncode == -signal.SIGKILL:
            why = f"its process was ended by SIGKILL, perhaps {_MEMORY_HINT}"
        raise CurateError(f"{model.name} can't be merged into a checkpoint: {why}")


def main(base: str, adapter: str, dtype: str, folder: str) -> None:
    """Load, merge and save; an error is the last line of stderr."""
    import torch
    from transformers import GenerationConfig

    from curate.backends.weights import choose_dtype, load

    cpu = torch.device("cpu")
    path = Path(base)
    model = Model("merged", "misaligned", adapter, path, Path(adapter), path, "")
    try:
        net = load(model, cpu, choose_dtype(dtype, cpu))
        # Scores need none, and a published one that contradicts itself is refused when it is saved.
        net.generation_config = GenerationConfig()
        net.save_pretrained(folder)
    except (CurateError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
    main(*sys.argv[2:])
