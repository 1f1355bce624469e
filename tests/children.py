"""Child processes for tests of `curate.backends.processes`: `python -m children DESCRIPTOR`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection


def main(descriptor: int) -> None:
    """Answer what is sent; the first message says how to behave."""
    connection = Connection(descriptor)
    how = connection.recv()
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


if __name__ == "__main__":
    main(int(sys.argv[1]))
