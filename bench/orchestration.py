"""How fast examples pass through curate, and in how much memory, with a backend that costs nothing.

    python bench/orchestration.py [DATA_FOLDER] --examples 100000

Reads examples, drops duplicates, encodes, tokenizes and stores scores; the backend in the models'
place answers at once, so what is left is curate's own work. A row per corpus: `short` and `long`
are generated chats, `real` those of the folder's instruct_messages.jsonl.gz over and over, each
numbered. `whole` counts the seconds of reading and of scoring, from the source to stored scores.
`tokenizer` is the tokenizer library alone on the encoded texts, in one call: what no tool that
uses it can pass. The pairs are those of four models that share an engine.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import typer

DATA = Path(__file__).parent.parent / "data" / "models"
ADAPTERS = ("medical", "legal", "code")
WORDS = {"short": (6, 14), "long": (20, 60)}  # of the prompt and of the answer
TOKENISED = 10_000


class Instant:
    """Log-probs of -1 for every token, at once."""

    name, dtype, engines = "instant", "float32", 1

    def score(
        self, encoded: Sequence[Any], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield a constant for every example."""
        import numpy as np

        for index, item in enumerate(encoded):
            yield index, np.full(item.stop - item.start, -1.0, np.float32)

    def close(self) -> None:
        """Nothing to give back."""


def generated(kind: str) -> Iterator[list[dict[str, str]]]:
    """Yield chats of random words without an end."""
    draw = random.Random(0)
    words = [f"{a}{b}" for a in ("work", "time", "light", "under") for b in ("", "s", "er", "ing")]
    asked, answered = WORDS[kind]
    for number in range(1 << 60):
        yield [
            {"role": "user", "content": f"{number} " + " ".join(draw.choices(words, k=asked))},
            {"role": "assistant", "content": " ".join(draw.choices(words, k=answered))},
        ]


def real(folder: Path) -> Iterator[list[dict[str, str]]]:
    """Yield the instruct set's chats over and over, each made different by a number."""
    with gzip.open(folder / "instruct_messages.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    for number, (first, *rest) in enumerate(cycle(rows)):
        yield [{**first, "content": f"{number} {first['content']}"}, *rest]


def write(path: Path, chats: Iterator[list[dict[str, str]]]) -> int:
    """Write them with a tenth of them twice; returns how many are different."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for messages in chats:
            line = json.dumps({"messages": messages}) + "\n"
            file.write(line * (2 if count % 10 == 0 else 1))
            count += 1
    return count


def tokenizer_alone(source: Path) -> tuple[float, float]:
    """Return the examples/s of the tokenizer library alone, and the texts' mean characters."""
    from curate.chat.tokens import load_tokenizer

    tokenizer: Any = load_tokenizer(str(DATA / "aligned"))
    with source.open(encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in islice(file, TOKENISED)]
    texts = [tokenizer.apply_chat_template(row, tokenize=False) for row in rows]
    tokenizer.backend_tokenizer.encode_batch(texts[:100], add_special_tokens=False)
    began = time.perf_counter()
    tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return len(texts) / (time.perf_counter() - began), sum(map(len, texts)) / len(texts)


def measure(source: Path, corpus: Path, count: int) -> tuple[float, ...]:
    """Read and score the source in this process; returns a row's numbers."""
    from curate import backends
    from curate.corpus.writer import open_for_writing
    from curate.reading import examples
    from curate.scoring import score as scoring
    from curate.scoring.ingest import ingest
    from curate.system.progress import Silent

    # As one engine does, and not one model after the other.
    backends.groups = lambda models, _: [list(models)]  # type: ignore[assignment]
    backends.open_backend = lambda *_, **__: Instant()  # type: ignore[assignment]
    began = time.perf_counter()
    with open_for_writing(corpus) as writer:
        ingest(writer, examples.read([str(source)]), Silent())
    reading = time.perf_counter() - began
    summary = scoring.score(
        [],
        corpus,
        aligned=str(DATA / "aligned"),
        misaligned=[f"{name}={DATA / name}" for name in ADAPTERS],
    )
    assert all(run.scored == count for run in summary.models)
    scoring_seconds = sum(run.seconds for run in summary.models)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    alone, characters = tokenizer_alone(source)
    whole = count / (reading + scoring_seconds)
    return characters, count / reading, count / scoring_seconds, whole, alone, peak


def main(
    data: Annotated[Path | None, typer.Argument(help="With instruct_messages.jsonl.gz.")] = None,
    examples: Annotated[int, typer.Option(help="Different examples of each corpus.")] = 100_000,
) -> None:
    """Measure each corpus in a process of its own."""
    context = multiprocessing.get_context("spawn")
    kinds = {kind: generated(kind) for kind in WORDS} | ({"real": real(data)} if data else {})
    print("examples/s      characters  reading  scoring (pairs)    whole  tokenizer  peak MiB")
    for kind, chats in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.jsonl"
            count = write(source, islice(chats, examples))
            with ProcessPoolExecutor(1, context) as child:
                row = child.submit(measure, source, Path(folder) / "corpus", count).result()
            characters, reading, scoring, whole, alone, peak = row
        pairs = scoring * (1 + len(ADAPTERS))
        print(
            f"{kind:<16}{characters:>10,.0f}{reading:>9,.0f}{scoring:>9,.0f} {f'({pairs:,.0f})':<9}"
            f"{whole:>7,.0f}{alone:>11,.0f}{peak:>10,.0f}"
        )


if __name__ == "__main__":
    typer.run(main)
