"""A child process in the place of vLLM's worker, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection

import numpy as np

from curate.backends.vllm.worker import Job


def main(descriptor: str) -> None:
    """Answer what is sent; the first message says how to behave."""
    connection = Connection(int(descriptor))
    how = connection.recv()
    if isinstance(how, Job):
        score(connection)
        return
    if how == "who":
        code = "import numpy; print(numpy.__file__)"
        below = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        connection.send([np.__file__, below.stdout.strip()])
    if how == "die":
        os._exit(7)
    if how == "killed":
        print("ValueError: a warning of something else", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if how.startswith("say "):
        print(how.removeprefix("say "), file=sys.stderr, flush=True)
        os._exit(1)
    below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    connection.send(below.pid)
    while (message := connection.recv()) is not None:
        connection.send(os.environ.get("GIVEN", "") + message)
    if how == "stubborn":
        connection.recv()


def score(connection: Connection) -> None:
    """Answer as vLLM's worker does: every token costs a nat, or the process's number of them."""
    cost = os.getpid() if "COST_IS_PID" in os.environ else 1
    print(os.environ.get("LOGGED", ""), file=sys.stderr, flush=True)
    connection.send([])
    while (requests := connection.recv()) is not None:
        counts = [(one.index, len(one.ids) - one.start) for one in requests]
        connection.send([(index, np.full(n, -cost, np.float32)) for index, n in counts])
