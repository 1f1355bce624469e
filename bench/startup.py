"""How long the commands take that should feel instant: medians of ten whole processes.

python bench/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 10


def main() -> None:
    """Time `--help` and two `sql` questions over a made corpus of 1,000 examples."""
    sys.path.insert(0, str(ROOT / "tests"))
    from corpora import corpus

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "corpus"
        losses = {name: [1 + (n * k % 97) / 97 for n in range(1000)] for k, name in _MODELS}
        corpus(made, [f"answer {n}" for n in range(1000)], losses)
        for limit, *arguments in (
            (0.3, "--help"),
            (1.0, "sql", "top_gaps", "-c", str(made)),
            (1.0, "sql", "select count(*) from gaps", "-c", str(made), "--format", "json"),
        ):
            median, fastest = _time(arguments)
            shown = " ".join(arguments).replace(folder + "/", "")
            print(f"{median:.3f} s (fastest {fastest:.3f}, wanted {limit})  curate {shown}")


_MODELS = [(3, "aligned"), (5, "medical"), (7, "legal")]


def _time(arguments: list[str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "curate", *arguments]
    seconds = []
    for _ in range(RUNS + 1):  # the first one fills caches
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), min(seconds[1:])


if __name__ == "__main__":
    main()
