"""Whether curate stays small whatever it is given to read.

    python bench/size.py --examples 10000000 --files 200000

Each step runs in a process of its own and prints seconds, examples and peak memory. The first
reads, deduplicates and stores generated examples (a tenth of them stand twice); `--score` lets a
backend that answers at once score them too. The others read a row of 100 MB, bombs of some
kilobytes, and a glob of very many files of one row. A step that takes 2 GiB or more is a failure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from orchestration import DATA, Instant

from curate.cli.progress import Lines
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.reading import examples
from curate.scoring.ingest import ingest

MOST_MIB = 2048


def chats(count: int) -> Iterator[bytes]:
    """`count` different rows of JSON; every tenth comes again at once."""
    for number in range(count):
        row = {"prompt": f"What is {number} plus one?", "response": f"It is {number + 1}, I say."}
        line = orjson.dumps(row) + b"\n"
        yield line
        if number % 10 == 0:
            yield line


def many(folder: Path, count: int, score: bool) -> str:
    """Read and store `count` examples, and with `score` let the instant backend score them."""
    source, corpus = folder / "many.jsonl", folder / "many"
    with source.open("wb") as file:
        file.writelines(chats(count))
    if score:
        from curate import backends
        from curate.scoring import score as scoring

        backends.open_backend = lambda *_, **__: Instant()  # type: ignore[assignment]
        run = scoring.score(
            [str(source)], corpus, aligned=str(DATA / "aligned"), progress=Lines(sys.stderr)
        )
        return f"{run.read.new} new, {run.read.known} duplicates, {run.models[0].scored} scored"
    with open_for_writing(corpus) as writer:
        taken = ingest(writer, examples.read([str(source)]), Lines(sys.stderr))
    return f"{taken.new} new, {taken.known} duplicates"


def one_line(folder: Path) -> str:
    """Read a row of 100 MB between two usual ones."""
    source = folder / "line.jsonl"
    small, text = b'{"prompt": "a", "response": "b"}\n', b"x" * 100_000_000
    source.write_bytes(small + b'{"prompt": "q", "response": "' + text + b'"}\n' + small)
    return _read([str(source)])


def bombs(folder: Path) -> str:
    """Read a line without an end, and very many blank ones, from files of some KB."""
    found = []
    for name, piece in (("line", b"x" * 2**20), ("blank", (b" " * 1023 + b"\n") * 2**10)):
        source = folder / f"{name}.jsonl.zst"
        packed: bytes = pa.compress(piece * 64, codec="zstd", asbytes=True)
        source.write_bytes(packed * 64)  # 4 GiB: such files may be joined
        try:
            found.append(_read([str(source)]))
        except CurateError as error:
            found.append(str(error).split(": ", 1)[1][:70])
    return "; ".join(found)


def tiny_files(folder: Path, count: int) -> str:
    """Read `count` files of one row through a glob."""
    for number in range(count):
        place = folder / "tiny" / f"{number // 1000}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{number}.jsonl").write_bytes(b'{"prompt": "%d?", "response": "b"}' % number)
    return _read([str(folder / "tiny" / "*" / "*.jsonl")])


def _read(sources: list[str]) -> str:
    good = bad = 0
    for table, skipped in examples.read(sources):
        good, bad = good + table.num_rows, bad + skipped.num_rows
    return f"{good} examples, {bad} skipped"


def _measure(step: Callable[..., str], arguments: tuple[Any, ...]) -> tuple[float, float, str]:
    """Seconds, the most MiB at a time, and what the step says."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        said = step(Path(folder), *arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return time.perf_counter() - began, peak, said


def main() -> None:
    """Run the steps, one process each, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--score", action="store_true", help="score them with an instant backend")
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    steps: list[tuple[Callable[..., str], tuple[Any, ...]]] = [
        (one_line, ()),
        (bombs, ()),
        (tiny_files, (chosen.files,)),
        (many, (chosen.examples, chosen.score)),
    ]
    print(f"{'step':>10} {'seconds':>8} {'peak MiB':>9}")
    highest = 0.0
    for step, arguments in steps:
        with ProcessPoolExecutor(1, context) as child:  # one that is killed is an error here
            seconds, peak, said = child.submit(_measure, step, arguments).result()
        highest = max(highest, peak)
        print(f"{step.__name__:>10} {seconds:>8.1f} {peak:>9,.0f}  {said}", flush=True)
    if highest >= MOST_MIB:
        sys.exit(f"{highest:,.0f} MiB: more than the {MOST_MIB:,} that were promised")


if __name__ == "__main__":
    main()
