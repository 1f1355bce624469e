"""Every input format -> one Arrow schema with a stable id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from curate.errors import CurateError
from curate.reading.batches import Batch, Turns, example_id
from curate.reading.files import Raw
from curate.reading.filters import RowFilter
from curate.reading.layouts import Columns, Skip, conversation
from curate.reading.sources import resolve, rows
from curate.storage.schema import EXAMPLES, SKIPPED

__all__ = [
    "EXAMPLES",
    "SKIPPED",
    "Columns",
    "Skip",
    "conversation",
    "example_id",
    "read",
]


CHUNK_BYTES = 64 << 20


def read(
    sources: Sequence[str],
    *,
    columns: Columns = Columns(),  # noqa: B008 - frozen
    where: str | None = None,
    limit: int | None = None,
    turns: Turns = "last",
    strict: bool = False,
    batch_rows: int = 4096,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield (examples, skipped) tables of about `batch_rows` rows, in the sources' order.

    `where` is an SQL condition over a source's own columns; `limit` counts examples after it and
    after the skips; `turns="all"` makes every assistant turn an answer of its own. Nothing is
    dropped as a duplicate here. Memory does not grow with the number of rows.

    Raises:
        CurateError: a source can't be read, has no known format or no row; `where` is wrong or
            true for no row; with `strict`, the first row that can't be used (`path:line: ...`).
    """
    found = resolve(sources)
    keep = None if where is None else RowFilter(where)
    return _batches(found, keep, Batch(columns, turns, strict, limit), batch_rows)


def _batches(
    sources: list[str], keep: RowFilter | None, batch: Batch, batch_rows: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Fill the batch from every source and hand it on whenever it is full."""
    seen = kept = 0
    for source in sources:
        batch.begin(source)
        if keep:
            keep.begin(source)
        empty = True
        for chunk in _chunks(rows(source), 1 if keep is None else batch_rows):
            empty = False
            seen += len(chunk)
            chosen = chunk if keep is None else _chosen(chunk, keep)
            kept += len(chosen)
            for number, row in chosen:
                if batch.count == batch.limit:
                    break
                batch.add(number, row)
                if batch.is_full(batch_rows):
                    yield batch.take()
            if batch.count == batch.limit:
                break
        if empty:
            batch.skip(None, "the file is empty")
        batch.end()
        if batch.count == batch.limit:
            break
        if keep and not empty:
            keep.end()
    if seen == 0:
        raise CurateError(f"{', '.join(sources[:3])}: there is no row to read.")
    if kept == 0 and keep is not None:
        raise CurateError(f"--where {keep.where!r} is true for none of the {seen} rows read.")
    if batch.is_full(1):
        yield batch.take()


def _chunks(raw: Iterator[Raw], size: int) -> Iterator[list[Raw]]:
    """Gather rows for the filter: at most 1024 of them, or as many as hold `CHUNK_BYTES`."""
    chunk: list[Raw] = []
    weight = 0
    for one in raw:
        chunk.append(one)
        weight += 0 if size == 1 else _weight(one[1])
        if len(chunk) >= min(size, 1024) or weight >= CHUNK_BYTES:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def _weight(value: object) -> int:
    """About how many bytes a row's texts have; rows nest no deeper than JSON may."""
    todo, total = [value], 0
    while todo:
        one = todo.pop()
        total += 8
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return total


def _chosen(chunk: list[Raw], keep: RowFilter) -> list[Raw]:
    """Apply the filter; what couldn't be read can't be asked, so it stays and is skipped later."""
    chosen = [raw for raw in chunk if isinstance(raw[1], str)]
    whole = [(number, row) for number, row in chunk if not isinstance(row, str)]
    chosen += [whole[i] for i in keep([row for _, row in whole])]
    return sorted(chosen, key=lambda raw: raw[0])
