"""From sources into a corpus: new examples stored once, what can't be used recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from curate.corpus.writer import Writer
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

INTAKE_ROWS, INTAKE_BYTES = 32_768, 64 << 20
"""How much is gathered before duplicates are looked for and a part is written."""


@dataclass
class Intake:
    """What reading the sources gave: examples new to the corpus, known ones, rows skipped."""

    new: int = 0
    known: int = 0
    skipped: int = 0


def take_in(
    writer: Writer, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> Intake:
    """Store what `reading.examples.read` gives; also after an error, what was read until then.

    A stop drops what waits, seconds of reading: the next run's parts are then those of a run that
    was not stopped, and so are its batches.
    """
    taken = Intake()
    waiting: list[pa.Table] = []
    progress.start("reading", None)
    try:
        for table, skipped in batches:
            check_cancelled()
            progress.advance(table.num_rows)
            waiting.append(table)
            if skipped.num_rows:
                writer.add_skipped(skipped)
                taken.skipped += skipped.num_rows
            if (
                sum(part.num_rows for part in waiting) >= INTAKE_ROWS
                or sum(part.nbytes for part in waiting) >= INTAKE_BYTES
            ):
                _store(writer, waiting, taken)
    except Exception:
        _store(writer, waiting, taken)
        raise
    finally:
        progress.stop()
    _store(writer, waiting, taken)
    writer.drop_mended()
    return taken


def _store(writer: Writer, waiting: list[pa.Table], taken: Intake) -> None:
    if waiting:
        table = pa.concat_tables(waiting)
        waiting.clear()
        new = writer.add_examples(table)
        taken.new += new
        taken.known += table.num_rows - new
