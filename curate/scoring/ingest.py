"""From sources into a corpus: new examples are stored once, unusable rows are recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import pyarrow as pa

from curate.corpus.writer import Writer
from curate.storage.schema import EXAMPLES, SKIPPED
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

INGEST_ROWS, INGEST_BYTES = 32_768, 64 << 20
"""How much is gathered before duplicates are looked for and a part is written."""


@dataclass
class Ingested:
    """The result of reading sources: new examples, known ones, and skipped rows.

    `sources` has these three numbers per source, `reasons` counts the reasons for skips. `notes`
    lists what may belong to conversations but was not read; `empty` names the sources without a
    usable row, with the reasons.
    """

    new: int = 0
    known: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, table: pa.Table, fresh: pa.Table, skipped: pa.Table | None = None) -> None:
        """Count examples that were read, those of them that are new, and rows skipped."""
        self.new += fresh.num_rows
        self.known += table.num_rows - fresh.num_rows
        counts = [("new", fresh, 1), ("known", table, 1), ("known", fresh, -1)]
        if skipped is not None:
            self.skipped += skipped.num_rows
            counts.append(("skipped", skipped, 1))
            for reason, number in Counter(skipped["reason"].to_pylist()).items():
                self.reasons[reason] = self.reasons.get(reason, 0) + number
        for what, rows, sign in counts:
            for source, number in Counter(rows["source"].to_pylist()).items():
                of = self.sources.setdefault(source, {"new": 0, "known": 0, "skipped": 0})
                of[what] += sign * number


def drawn(
    batches: Iterator[tuple[pa.Table, pa.Table]], sample: int | None, seed: int, progress: Progress
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Pass on everything, or a uniform sample of the examples.

    The sample has the lowest hashes, so it doesn't depend on the order of reading. Up to twice the
    sample is held in memory.
    """
    kept = EXAMPLES.empty_table().append_column("mark", pa.array([], pa.binary(8)))
    waiting: list[pa.Table] = []
    for table, skipped in batches:
        progress.advance(table.num_rows)
        if sample is None:
            yield table, skipped
            continue
        texts = (f"{seed}:{example_id}".encode() for example_id in table["example_id"].to_pylist())
        marks = [blake2b(text, digest_size=8).digest() for text in texts]
        waiting.append(table.append_column("mark", pa.array(marks, pa.binary(8))))
        if sum(each.num_rows for each in waiting) > sample:
            kept = _lowest([kept, *waiting], sample)
            waiting.clear()
        if skipped.num_rows:
            yield table.slice(0, 0), skipped
    if sample is None:
        return
    kept = _lowest([kept, *waiting], sample).drop_columns("mark")
    for start in range(0, kept.num_rows, INGEST_ROWS):
        yield kept.slice(start, INGEST_ROWS), SKIPPED.empty_table()


def _lowest(tables: list[pa.Table], count: int) -> pa.Table:
    """The rows with the lowest marks, each mark once."""
    order = [("mark", "ascending"), ("source", "ascending"), ("row", "ascending")]
    rows = pa.concat_tables(tables).sort_by(order)
    marks = rows["mark"].to_pylist()
    first = [at for at, mark in enumerate(marks) if at == 0 or mark != marks[at - 1]]
    return rows.take(pa.array(first[:count], pa.int64()))


def ingest(
    writer: Writer, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> Ingested:
    """Store what `drawn` gives; after an error or a stop, what was read so far."""
    found = Ingested()
    waiting: list[pa.Table] = []

    def store() -> None:
        if waiting:
            table = pa.concat_tables(waiting)
            waiting.clear()
            found.add(table, writer.add_examples(table))

    progress.start("reading", None)
    try:
        for table, skipped in batches:
            check_cancelled()
            waiting.append(table)
            if skipped.num_rows:
                writer.skips.add(skipped)
                found.add(table.slice(0, 0), table.slice(0, 0), skipped)
            rows = sum(each.num_rows for each in waiting)
            if rows >= INGEST_ROWS or sum(each.nbytes for each in waiting) >= INGEST_BYTES:
                store()
    finally:
        progress.stop()
        store()
    writer.skips.drop_fixed()
    return found
