"""Child processes that load models: started, asked over a pipe, and ended with all they started.

They are started by `subprocess`, not by `multiprocessing`: that imports modules before a child can
be kept from the current folder, imports the user's own script again, and forbids a child that ends
with its parent to start vLLM's processes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.models.resolve import Model
from curate.system import scratch

_END_SECONDS = 10.0
_TAIL = 200_000  # characters of a log in which the cause is looked for
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|No available memory|bad_alloc|"
    r"larger than the available KV cache memory|allocation is less than requested memory for kv|"
    r"less than desired GPU memory utilization",
    re.IGNORECASE,
)
_CAUSE = re.compile(r"^(?:.* )?(?P<cause>[\w.]*(?:Error|Exception): .+)$", re.M)
_SAID_ELSEWHERE = re.compile(  # of the last: vLLM warns of it, since it needs none here
    "See root cause above|EngineDeadError|EngineCore encountered an issue|"
    "Tokenizer not available when"
)
MEMORY_HINT = (
    "out of memory: lower --max-length or --batch-tokens, split the model with --tensor-parallel, "
    "shrink it with --dtype or --engine-arg quantization=fp8, or change the engine's share with "
    "--engine-arg gpu_memory_utilization=0.8 (more if it has too little, less if others use the "
    "device), or keep fewer adapters there with --engine-arg max_loras=N"
)


class Child:
    """A module run by a Python of its own, with a pipe to it and its output in a log file.

    It gets a session of its own: a Ctrl-C reaches only the parent, which then ends the child with
    everything that the child started.
    """

    def __init__(self, module: str, job: Any, environment: Mapping[str, str]) -> None:
        self.log = scratch.fresh("engine") / "log"
        self._failed = False
        self.connection, theirs = Pipe()
        with theirs, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                _command(module, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env=_environment(environment),
                start_new_session=True,
            )
        self.send(job)

    def send(self, message: Any) -> None:
        """Send something; that the child is gone shows in `receive`."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The child's next message; None if it has died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def why(self, said: str | None) -> str:
        """Why it failed, in one line, and where its log is, which is then kept."""
        code = self._end()
        if not self._failed:
            self._failed = True
            with suppress(OSError):  # a full disk
                number, kept = tempfile.mkstemp(prefix="curate-engine-", suffix=".log")
                os.close(number)
                self.log = Path(shutil.move(self.log, kept))
        cause = self._cause(said or "", code)
        if "ended by SIGKILL" in cause:  # a machine that runs out of memory ends processes so
            cause = f"{cause}, perhaps {MEMORY_HINT}"
        line = re.sub(r"\s+", " ", cause)[:600]
        return f"{line}; its log is {self.log}"

    def _cause(self, said: str, code: int | None) -> str:
        """What the child said itself, else its log's last error, else how its process ended."""
        text = self.log.read_text(errors="replace")[-_TAIL:]
        text = "\n".join(line for line in text.splitlines() if " INFO " not in line)
        if _OUT_OF_MEMORY.search(f"{said}\n{text}"):
            return MEMORY_HINT
        if said and not _SAID_ELSEWHERE.search(said):
            return said
        if code is not None and code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        causes = [match["cause"] for match in _CAUSE.finditer(text)]
        causes = [cause for cause in causes if not _SAID_ELSEWHERE.search(cause)]
        return causes[-1] if causes else f"its process died (exit code {code})"

    def close(self) -> None:
        """Ask the child to end, and make sure that it does; its log goes unless it failed."""
        self.send(None)
        self._end()
        self.connection.close()
        if not self._failed:
            self.log.unlink(missing_ok=True)

    def _end(self) -> int | None:
        """Wait, then kill it and all it started; gives its exit code, None if it was killed."""
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=_END_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return code


def answering(children: Iterable[Child]) -> list[Child]:
    """Those of the children that have sent something or died, after a second at most."""
    by_connection = {child.connection: child for child in children}
    return [by_connection[c] for c in wait(by_connection, timeout=1.0)]  # type: ignore[index]


def end_with_parent() -> None:
    """End this process and its group once the parent is gone, however it went."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def _command(module: str, *arguments: object) -> list[str]:
    """Run a module's `main` in a Python that imports nothing from the current folder.

    That folder may hold data from anywhere, and files in it named like modules. Under `-m` the
    module would be called `__main__`, and the parent would not know the messages it sends.
    """
    run = "import importlib, sys; importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"
    return [sys.executable, "-P", "-c", run, module, *map(str, arguments)]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Our environment, `more`, and the places that we import from: a checkout isn't installed."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **more, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def merge(model: Model, dtype: str, folder: Path) -> None:
    """Write the model's weights with its adapter in them to a folder, as large as the model.

    Raises `CurateError` if the adapter does not fit, or the disk or the memory is full.
    """
    ran = subprocess.run(
        _command(__name__, model.path, model.adapter, dtype, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment({}),
        start_new_session=True,
    )
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        why = lines[-1] if lines else f"its process died (exit code {ran.returncode})"
        if ran.returncode == -signal.SIGKILL:
            why = (
                "its process was ended by SIGKILL, perhaps out of memory: the whole model is in it "
                "while it is merged; give a smaller --dtype, or merge it on a larger machine and "
                "name the result"
            )
        raise CurateError(f"{model.name} can't be merged into a checkpoint: {why}")


def main(base: str, adapter: str, dtype: str, folder: str) -> None:
    """Load, merge and save, in the child; an error is the last line of stderr."""
    import torch
    from transformers import GenerationConfig

    from curate.backends.weights import choose_dtype, load

    end_with_parent()
    cpu = torch.device("cpu")
    path = Path(base)
    model = Model("merged", "misaligned", adapter, path, Path(adapter), path, "")
    try:
        net = load(model, cpu, choose_dtype(dtype, cpu))
        # Scores need none, and saving refuses published ones that contradict themselves.
        net.generation_config = GenerationConfig()
        net.save_pretrained(folder)
    except (CurateError, OSError) as error:
        raise SystemExit(str(error)) from None
