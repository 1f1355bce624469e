"""An adapter merged into a checkpoint of its own on disk, by a process that gives its memory back.

As a program: `python -m curate.backends.merging PARENT BASE ADAPTER DTYPE FOLDER`. It ends with its
parent, the process of that number.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from curate.backends.processes import command, end_with, surroundings
from curate.errors import CurateError
from curate.models import Model
from curate.stopping import held

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
