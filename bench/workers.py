"""What Ray costs: one worker against none, sixteen pretended ones, and the driver's own rate.

    python bench/workers.py one --shape 100m --rounds 5
    python bench/workers.py sixteen
    python bench/workers.py driver --examples 20000

`one` scores the same examples in this process and on one worker, in turn. `sixteen` has workers
that take 20 ms for an example: the least that their windows allow is that of the busiest worker.
`driver` reads, tokenizes, sends and stores for four models, on a worker that answers at once.
Processor seconds are those of this process, of Ray and of its workers together: they tell more
than the clock where other work shares the machine. Ray is started here: run it where nobody else
reaches this machine's ports.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orchestration
import ray
import typer
from scoring_machine import processor_seconds
from scoring_shapes import DEMO, family

from curate import backends
from curate.backends.base import Compute, Window
from curate.backends.ray.backend import RayBackend
from curate.chat.encode import Encoded
from curate.models.resolve import resolve
from curate.scoring import score as scoring

app = typer.Typer(add_completion=False)
SECONDS = 0.02  # of an example
TOKENS = 470


class Slow(orchestration.Instant):
    """A constant for every token, 50 examples a second."""

    def score(
        self, encoded: Sequence[Any], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield it when its time has come: what is late once is caught up."""
        began = time.monotonic()
        for index, found in super().score(encoded, models):
            time.sleep(max(0.0, began + SECONDS * (index + 1) - time.monotonic()))
            yield index, found


def random_windows(count: int, size: int, tokens: int) -> list[Window]:
    """Windows of random ids under one model; the last quarter of each text is its answer."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        ids = draw.integers(5, 1000, (size, tokens)).tolist()
        items = [Encoded(each, tokens * 3 // 4, tokens, False) for each in ids]
        found.append(Window([str(n) for n in range(size)], [0] * size, items))
    return found


def start(**resources: Any) -> None:
    """A cluster of this machine; workers run the bench's own classes by value."""
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **resources)
    ray.cloudpickle.register_pickle_by_value(orchestration)


@app.command()
def one(
    shape: str = "demo",
    rounds: int = 5,
    examples: int = 32,
    tokens: int = 128,
    folder: Annotated[Path, typer.Option(help="Where models are made.")] = Path("/tmp/shapes"),
) -> None:
    """One worker against none, in turn."""
    start()
    model = resolve(str(family(shape, folder, "float32").base), [])
    compute = Compute("transformers", device="cpu", dtype="float32")
    here = backends.open_backend(model, compute)
    options = Compute("transformers", device="cpu", dtype="float32", ray="auto", workers=1)
    there = RayBackend(model, options, print, backends.open_backend)
    windows = random_windows(2, examples // 2, tokens)

    def plain() -> int:
        return sum(1 for window in windows for _ in here.score(window.encoded))

    def sent() -> int:
        return sum(1 for _ in there.stream(windows))

    taken: dict[str, list[tuple[float, float]]] = {"here": [], "on a worker": []}
    for number in range(rounds + 1):
        for name, side in zip(taken, (plain, sent), strict=True):
            began, used = time.perf_counter(), processor_seconds()
            assert side() == examples
            if number:  # the first warms up
                seconds = time.perf_counter() - began
                taken[name].append((seconds, sum(processor_seconds(used).values())))
    for unit, kind in enumerate(("seconds", "processor seconds")):
        a, b = ([round(each[unit], 2) for each in side] for side in taken.values())
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        print(f"{kind}: here {a}, on a worker {b}; median of the ratios {ratio:.3f}")
    there.close()


@app.command()
def sixteen(workers: int = 16, windows: int = 160, size: int = 512) -> None:
    """Many workers that do nothing but wait."""
    start(num_cpus=workers, num_gpus=workers)
    compute = Compute("vllm", device="cuda", ray="auto", workers=workers)
    backend = RayBackend([], compute, print, lambda *_: Slow(), workers)
    counts = [0]
    while counts[-1] < workers:  # all of them are ready
        list(backend.stream(random_windows(2 * workers, 5, 4), counts.append))
    work = random_windows(windows, size, TOKENS)
    began = time.perf_counter()
    found = sum(1 for _ in backend.stream(work))
    took, least = time.perf_counter() - began, -(-windows // workers) * size * SECONDS
    assert found == windows * size
    print(f"{found:,} examples: {took:.1f} s where windows allow {least:.1f}: {least / took:.1%}")
    backend.close()


@app.command()
def driver(examples: int = 20_000) -> None:
    """From rows to stored scores, with one worker that answers at once."""
    start()
    used = dict[int, float]()

    class Measured(RayBackend):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            used.update(processor_seconds())

        def close(self) -> None:  # the worker's own time can't be seen any more after it
            since = processor_seconds(used)
            used.clear()
            used.update(since)
            super().close()

    backends.groups = lambda models, _: [list(models)]
    backends.open_backend = lambda group, compute, note, windows: Measured(  # type: ignore[assignment]
        group, compute, note, lambda *_: orchestration.Instant(), windows
    )
    orchestration.WORDS["long"] = (90, 150)
    names = ("medical", "legal", "code")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        with source.open("w") as file:
            for messages in islice(orchestration.generated("long"), examples):
                file.write(json.dumps({"messages": messages}) + "\n")
        summary = scoring.score(
            [str(source)],
            Path(folder) / "corpus",
            aligned=str(DEMO / "aligned"),
            misaligned=[f"{name}={DEMO / name}" for name in names],
            compute=Compute(ray="auto", workers=1),
        )
    own, all_cpu = used[os.getpid()], sum(used.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert all(run.scored == examples for run in summary.models)
    seconds = sum(run.seconds - run.loading for run in summary.models)
    tokens = summary.models[0].tokens / examples
    print(
        f"{examples:,} examples of {tokens:.0f} tokens x {len(summary.models)} models: "
        f"{examples / seconds:,.0f} examples/s once they are read; processor time of an example: "
        f"{1e6 * own / examples:,.0f} us here, {1e6 * all_cpu / examples:,.0f} us with Ray and the "
        f"worker, so two cores do {2 * examples / all_cpu:,.0f}/s at most; peak {peak:,.0f} MiB"
    )


if __name__ == "__main__":
    app()
