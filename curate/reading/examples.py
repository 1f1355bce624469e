"""Every input format -> one Arrow schema with a stable id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.reading.files import ROW_BYTES, TOO_LONG, Raw
from curate.reading.layouts import (
    Columns,
    Message,
    Skip,
    UnknownFormat,
    check_answer,
    parse,
)
from curate.reading.refusals import is_refusal
from curate.reading.sources import resolve, rows
from curate.reading.where import RowFilter, json_bytes
from curate.storage.schema import EXAMPLES, MESSAGES, SKIPPED

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


MAX_BYTES = 1 << 30  # one example's messages; Arrow's strings end at 2 GiB
FLUSH_BYTES = 64 << 20  # a batch is full when it is this big, however few its rows
HEAD_ROWS = 1000  # a source whose first rows have no known format is refused there and then
OPTIONS = "--messages-column, --prompt-column, --answer-column, --system-column"

Turns = Literal["last", "all"]


def example_id(messages: Sequence[Mapping[str, str]]) -> str:
    """Return 32 hex characters: the 128-bit BLAKE2b hash of the canonical messages.

    Canonical is the compact UTF-8 JSON of [[role, content], ...], texts exactly as they are:
    nothing is trimmed and Unicode is not normalised, since either changes what a model reads.

    Raises:
        Skip: a text has a lone surrogate or a NUL, or is longer than 1 GiB.
    """
    return blake2b(canonical(messages), digest_size=16).hexdigest()


def canonical(messages: Sequence[Mapping[str, str]]) -> bytes:
    """Return the bytes that `example_id` hashes; raises what it raises."""
    try:
        text = orjson.dumps([[m["role"], m["content"]] for m in messages])
    except TypeError:
        raise Skip("a lone surrogate in the text") from None
    if b"\\u0000" in text and any("\0" in m["content"] for m in messages):
        raise Skip("a NUL character in the text")
    if len(text) > MAX_BYTES:
        raise Skip("longer than 1 GiB")
    return text


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the turns before the answer as people read them: one user turn is its bare text."""
    if len(messages) == 2 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages[:-1])


def _size_of_all(messages: Sequence[Message], meta: str) -> int:
    """About how long the examples of all turns are together: each repeats what is before it."""
    sizes = accumulate(8 + len(each["role"]) + len(each["content"]) for each in messages)
    turns = zip(sizes, messages, strict=True)
    return sum(len(meta) + size for size, each in turns if each["role"] == "assistant")


class Batch:
    """Collects examples and skipped rows as columns until they are taken as two tables."""

    def __init__(self, columns: Columns, turns: Turns, strict: bool, limit: int | None) -> None:
        self.columns, self.turns, self.strict, self.limit = columns, turns, strict, limit
        self.count = 0  # examples in all, over every batch
        self._clear()
        self.begin("")

    def begin(self, source: str) -> None:
        """Start with another source."""
        self.source = source
        self._known = False
        self._unknown = ""
        self._added = 0
        self._lacking = self.columns.system

    def end(self) -> None:
        """Finish a source, or its first rows.

        Raises:
            CurateError: none of its rows had a known format, or the named system column.
        """
        if self._unknown and not self._known:
            raise CurateError(f"{self.source}: {self._unknown}. Name them with {OPTIONS}.")
        if self._lacking and self._known:
            raise CurateError(f"{self.source}: no row has a column {self._lacking!r} (system).")

    def add(self, number: int, row: dict[str, Any] | str) -> None:
        """Add a row's examples, or skip it with its reason.

        Raises:
            CurateError: no row so far had a known format; or, if strict, this one is skipped.
        """
        self._added += 1
        if self._added == HEAD_ROWS:
            self.end()
        if isinstance(row, str):
            return self.skip(number, row)
        if self._lacking in row:
            self._lacking = None
        try:
            messages, used = parse(row, self.columns)
            meta = json_bytes({k: v for k, v in row.items() if k not in used}).decode()
        except UnknownFormat as skip:
            self._unknown = self._unknown or str(skip)
            if self.strict:
                self.end()
            return self.skip(number, str(skip))
        except Skip as skip:
            self._known = True
            return self.skip(number, str(skip))
        except TypeError as error:
            self._known = True
            return self.skip(number, f"another column is not JSON ({error})")
        self._known = True
        if self.turns == "all" and _size_of_all(messages, meta) > ROW_BYTES:
            return self.skip(number, f"the examples of its turns are together {TOO_LONG}")
        last = len(messages) - 1
        for at in range(last + 1) if self.turns == "all" else (last,):
            if messages[at]["role"] == "assistant" and self.count != self.limit:
                self._example(number, messages[: at + 1], meta)
        return None

    def skip(self, number: int | None, reason: str) -> None:
        """Record a row (or a whole source, without a number) that gives no example.

        Raises:
            CurateError: the reading is strict.
        """
        if self.strict and number is not None:
            raise CurateError(f"{self.source}:{number}: {reason}")
        self._skipped.append((self.source, number, reason))

    def is_full(self, rows: int) -> bool:
        """Tell whether this many examples, as many skipped rows, or enough bytes are in it."""
        size = self._bytes
        return len(self._ids) >= rows or len(self._skipped) >= rows or size >= FLUSH_BYTES

    def take(self) -> tuple[pa.Table, pa.Table]:
        """Return (examples, skipped) and start anew."""
        answers = pa.array(self._answers, pa.string())
        turns = pa.StructArray.from_arrays(
            [pa.array(self._roles, pa.string()), pa.array(self._contents, pa.string())],
            fields=list(MESSAGES.value_type),
        )
        examples = pa.table(
            [
                pa.array(self._ids, pa.string()),
                pa.array(self._sources, pa.string()),
                pa.array(self._rows, pa.int64()),
                pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), turns),
                pa.array(self._prompts, pa.string()),
                answers,
                pc.binary_length(answers).cast(pa.int64()),
                pa.array(map(is_refusal, self._answers), pa.bool_()),
                pa.array(self._metas, pa.string()),
            ],
            schema=EXAMPLES,
        )
        skipped = pa.Table.from_pylist(
            [dict(zip(("source", "row", "reason"), s, strict=True)) for s in self._skipped],
            schema=SKIPPED,
        )
        self._clear()
        return examples, skipped

    def _clear(self) -> None:
        self._bytes = 0
        self._offsets = [0]
        self._rows: list[int] = []
        self._ids: list[str] = []
        self._sources: list[str] = []
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._prompts: list[str] = []
        self._answers: list[str] = []
        self._metas: list[str] = []
        self._skipped: list[tuple[str, int | None, str]] = []

    def _example(self, number: int, messages: list[Message], meta: str) -> None:
        try:
            check_answer(messages)
            text = canonical(messages)
        except Skip as skip:
            return self.skip(number, str(skip))
        self.count += 1
        self._ids.append(blake2b(text, digest_size=16).hexdigest())
        self._sources.append(self.source)
        self._rows.append(number)
        for message in messages:
            self._roles.append(message["role"])
            self._contents.append(message["content"])
        self._offsets.append(len(self._roles))
        self._prompts.append(prompt_text(messages))
        self._answers.append(messages[-1]["content"])
        self._metas.append(meta)
        self._bytes += 2 * len(text) + len(meta)
        return None
