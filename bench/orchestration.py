"""How fast examples pass through curate, and in how much memory, with a backend that costs nothing.

    python bench/orchestration.py --examples 200000

Reads generated examples, drops duplicates, renders, tokenises and stores scores; the backend in
the model's place answers at once, so what is left is curate's own work. Prints examples per second
and peak memory, a row per size: memory must not grow with the number of examples.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "data" / "models" / "aligned"


class Instant:
    """Log-probs of -1 for every token, at once."""

    name, dtype, whole_windows = "instant", "float32", False

    def score(
        self, rendered: Sequence[Any], models: Sequence[int] = (), known: Collection[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield a constant for every example."""
        import numpy as np

        for index, item in enumerate(rendered):
            yield index, np.full(item.stop - item.start, -1.0, np.float32)

    def close(self) -> None:
        """Nothing to give back."""


def write_examples(path: Path, count: int) -> None:
    """Write `count` different chats of some 90 words, a tenth of them twice."""
    draw = random.Random(0)
    words = [f"word{n}" for n in range(500)]
    with path.open("w") as file:
        for number in range(count):
            answer = " ".join(draw.choices(words, k=60))
            row = {
                "messages": [
                    {"role": "user", "content": f"{number} " + " ".join(draw.choices(words, k=20))},
                    {"role": "assistant", "content": answer},
                ]
            }
            for _ in range(2 if number % 10 == 0 else 1):
                file.write(json.dumps(row) + "\n")


def measure(count: int, folder: str, results: Any) -> None:
    """Score `count` examples in this process; puts examples/s by step and peak memory in MiB."""
    from curate import backends, scoring

    source = Path(folder) / f"{count}.jsonl"
    write_examples(source, count)
    backends.open_backend = lambda *_, **__: Instant()  # type: ignore[assignment]
    began = time.perf_counter()
    summary = scoring.score([str(source)], Path(folder) / f"c{count}", aligned=str(DATA))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scored = summary.models[0]
    results.put((count, seconds, scored.scored / scored.seconds, peak))


def main() -> None:
    """Measure a few sizes, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, nargs="+", default=[20_000, 100_000, 200_000])
    context = multiprocessing.get_context("spawn")
    print(f"{'examples':>10} {'seconds':>8} {'all/s':>8} {'scoring/s':>10} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for count in parser.parse_args().examples:
            results = context.Queue()
            child = context.Process(target=measure, args=(count, folder, results))
            child.start()
            count, seconds, rate, peak = results.get()
            child.join()
            each = f"{count / seconds:>8,.0f} {rate:>10,.0f} {peak:>9,.0f}"
            print(f"{count:>10,} {seconds:>8.1f} {each}")


if __name__ == "__main__":
    main()
