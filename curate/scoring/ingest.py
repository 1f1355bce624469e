"""From sources into a corpus: new examples stored once, what can't be used recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from curate.corpus.writer import Writer
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

INGEST_ROWS, INGEST_BYTES = 32_768, 64 << 20
"""How much is gathered before duplicates are looked for and a part is written."""


@dataclass
class Ingested:
    """What reading the sources gave: examples new to the corpus, known ones, rows skipped.

    `notes` says what may belong to conversations and was not read; `empty` names the sources of
    which no row could be used, with the reasons.
    """

    new: int = 0
    known: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def ingest(
    writer: Writer, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> Ingested:
    """Store what `reading.examples.read` gives; after an error or a stop, what was read so far."""
    found = Ingested()
    waiting: list[pa.Table] = []

    def store() -> None:
        if waiting:
            table = pa.concat_tables(waiting)
            waiting.clear()
            new = writer.add_examples(table)
            found.new += new
            found.known += table.num_rows - new

    progress.start("reading", None)
    try:
        for table, skipped in batches:
            check_cancelled()
            progress.advance(table.num_rows)
            waiting.append(table)
            if skipped.num_rows:
                writer.add_skipped(skipped)
                found.skipped += skipped.num_rows
            rows = sum(each.num_rows for each in waiting)
            if rows >= INGEST_ROWS or sum(each.nbytes for each in waiting) >= INGEST_BYTES:
                store()
    finally:
        progress.stop()
        store()
    writer.drop_mended()
    return found
