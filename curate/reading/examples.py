"""Every input format -> one Arrow schema with a stable id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.reading.addresses import Source
from curate.reading.files import Raw
from curate.reading.known import COLUMNS, Known, known_layouts
from curate.reading.layouts import (
    Message,
    UnknownFormat,
    check_answer,
    conversation,
    messages_of,
)
from curate.reading.refusals import is_refusal
from curate.reading.sources import resolve, rows
from curate.reading.turns import Skip
from curate.reading.unread import Unread
from curate.reading.where import RowFilter, json_bytes
from curate.storage.schema import EXAMPLES, REASONING, SKIPPED

FLUSH_BYTES = 64 << 20  # a batch is full when it is this big, however few its rows
HEAD_ROWS = 1000  # a source whose first rows have no known layout is refused there and then
MAX_REASONS = 1000  # counted apart; broken rows may each have one of their own

Turns = Literal["last", "all"]


@dataclass
class Told:
    """What a reading says besides its tables: notes, and sources without one usable row."""

    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def read(
    sources: Sequence[str | Source],
    *,
    columns: Mapping[str, str] | None = None,
    layouts: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    turns: Turns = "last",
    strict: bool = False,
    told: Told | None = None,
    batch_rows: int = 4096,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield (examples, skipped) tables of about `batch_rows` rows, in the sources' order.

    `columns` maps roles (messages, prompt, answer, system, context, history, reasoning) to the
    names of a source's columns, if its layout is not a known one; `layouts` is a file of further
    layouts. `where` is an SQL condition over a source's own columns, `prompt` and `answer`; `limit`
    counts each source's examples after it and after the skips; `turns="all"` makes every assistant
    turn an answer of its own. `told` is filled when all is read. Nothing is dropped as a duplicate
    here. Memory does not grow with the number of rows.

    Raises:
        CurateError: a source can't be read or has no known layout; there is no row, or none that
            can be used; `where` is wrong or true for no row; with `strict`, the first row that
            can't be used (`path:line: ...`).
    """
    batch = _Batch(known_layouts(columns, layouts), turns, strict, limit)
    keep = None if where is None else RowFilter(where, batch.texts)
    return _batches(resolve(sources), keep, batch, told or Told(), batch_rows)


def _batches(
    sources: list[Source], keep: RowFilter | None, batch: _Batch, told: Told, batch_rows: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Fill the batch from every source and hand it on whenever it is full."""
    seen = kept = 0

    def counted(source: Source) -> Iterator[Raw]:
        nonlocal seen
        for raw in rows(source):
            seen += 1
            yield raw

    for source in sources:
        batch.begin(source.name)
        before, found = seen, counted(source)
        for number, row in keep.rows(source.name, found) if keep else found:
            kept += 1
            if batch.is_done():
                break
            batch.add(number, row)
            if batch.is_full(batch_rows):
                yield batch.take()
        if seen == before:
            batch.skip(None, "the file is empty")
        batch.end()
        told.empty += batch.empty()
    if seen == 0:
        raise CurateError(f"{', '.join(map(str, sources[:3]))}: no rows to read.")
    if kept == 0 and keep:
        raise CurateError(f"--where {keep.where!r} is true for none of the {seen} rows read.")
    if batch.count == 0 and told.empty:
        raise CurateError(told.empty[0])
    if batch.is_full(1):
        yield batch.take()
    told.notes += batch.notes()


def example_id(messages: Sequence[Mapping[str, str]]) -> str:
    """Return 32 hex characters: the 128-bit BLAKE2b hash of the canonical messages.

    Canonical is the compact UTF-8 JSON of [[role, content], ...], with a third text for a turn
    that has reasoning beside its content, texts exactly as they are:
    nothing is trimmed and Unicode is not normalized, since either changes what a model reads.

    Raises:
        Skip: a text has a lone surrogate or a NUL.
    """
    return _hash(_canonical(messages))


def _hash(text: bytes) -> str:
    return blake2b(text, digest_size=16).hexdigest()


def _canonical(messages: Sequence[Mapping[str, str]]) -> bytes:
    try:
        text = orjson.dumps([_texts(m) for m in messages])
    except TypeError:
        raise Skip("a lone surrogate in the text") from None
    if b"\\u0000" in text and any("\0" in each for m in messages for each in _texts(m)):
        raise Skip("a NUL character in the text")
    return text


def _texts(message: Mapping[str, str]) -> list[str]:
    reasoning = message.get(REASONING)
    return [message["role"], message["content"], *([reasoning] if reasoning else [])]


def prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the turns before the answer as people read them: one user turn is its bare text."""
    if len(messages) == 2 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages[:-1])


class _Batch:
    """Collects examples and skipped rows until they are taken as two tables."""

    def __init__(self, known: Known, turns: Turns, strict: bool, limit: int | None) -> None:
        self.turns, self.strict, self.limit = turns, strict, limit
        self.count = 0  # examples in all, over every batch
        self._layouts = known
        self._unread: dict[str, Unread] = {}
        self._clear()

    def begin(self, source: str) -> None:
        """Start with another source."""
        self.source = source
        self._unread[source] = Unread(self._layouts)
        self._reasons: Counter[str] = Counter()
        self._before = self.count
        self._known, self._unknown = False, ""
        self._added = 0
        self._lacking = set(self._layouts.extra)

    def is_done(self) -> bool:
        """Tell whether the source has given as many examples as are wanted of each."""
        return self.count - self._before == self.limit

    def end(self) -> None:
        """Finish a source, or its first rows.

        Raises:
            CurateError: none of its rows had a known layout, or one of the named columns.
        """
        if self._unknown and not self._known:
            raise CurateError(
                f"{self.source}: {self._unknown}. Name them with --column ROLE=NAME; the roles are "
                f"{', '.join(COLUMNS)}; they hold for every source of a command. Turns of another "
                "shape: describe them in --layouts FILE."
            )
        if self._lacking and self._known:
            raise CurateError(f"{self.source}: no row has a column {sorted(self._lacking)[0]!r}.")

    def empty(self) -> list[str]:
        """For a source whose rows were all skipped: a line with the reasons."""
        rows = self._reasons.total()
        if self.count > self._before or not rows:
            return []
        why = "; ".join(f"{count:,} x {reason}" for reason, count in self._reasons.most_common(3))
        return [f"{self.source}: no example could be read. Rows skipped: {why}"]

    def notes(self) -> list[str]:
        """What the sources so far hold and was not read, each thing once."""
        named: dict[str, list[str]] = {}
        for source, unread in self._unread.items():
            if str(unread):
                named.setdefault(str(unread), []).append(source)
        return [
            first + (f" and {len(others)} more" if others else "") + f": {what}"
            for what, (first, *others) in named.items()
        ]

    def add(self, number: int, row: dict[str, Any] | str) -> None:
        """Add a row's examples, or skip it with its reason.

        Raises:
            CurateError: no row so far had a known layout; or, if strict, this one is skipped.
        """
        self._added += 1
        if self._added == HEAD_ROWS:
            self.end()
        if isinstance(row, str):
            return self.skip(number, row)
        if self._lacking:
            self._lacking -= row.keys()
        try:
            found = conversation(row, self._layouts)
            messages = messages_of(found.turns, self._layouts)
            meta = json_bytes({k: v for k, v in row.items() if k not in found.used}).decode()
        except UnknownFormat as skip:
            self._unknown = self._unknown or str(skip)
            if self.strict:
                self.end()
            return self.skip(number, str(skip))
        except (Skip, TypeError) as error:
            self._known = True
            why = str(error) if isinstance(error, Skip) else f"another column is not JSON ({error})"
            return self.skip(number, why)
        self._known = True
        self._unread[self.source].look(row, found, messages)
        last = len(messages) - 1
        for at in range(last + 1) if self.turns == "all" else (last,):
            if messages[at]["role"] == "assistant" and not self.is_done():
                self._example(number, messages[: at + 1], meta)
        return None

    def texts(self, row: dict[str, Any]) -> dict[str, str | None] | None:
        """A row's prompt and last answer, as `examples` has them; None for an unknown layout."""
        try:
            messages = messages_of(conversation(row, self._layouts).turns, self._layouts)
        except UnknownFormat:
            return None
        except (Skip, TypeError):
            return {"prompt": None, "answer": None}
        return {"prompt": prompt_text(messages), "answer": messages[-1]["content"]}

    def skip(self, number: int | None, reason: str) -> None:
        """Record a row (or a whole source, without a number) that gives no example.

        Raises:
            CurateError: the reading is strict.
        """
        if self.strict and number is not None:
            raise CurateError(f"{self.source}:{number}: {reason}")
        if number is not None and (len(self._reasons) < MAX_REASONS or reason in self._reasons):
            self._reasons[reason] += 1
        self._skipped.append({"source": self.source, "row": number, "reason": reason})

    def is_full(self, rows: int) -> bool:
        """Tell whether this many examples, as many skipped rows, or enough bytes are in it."""
        return max(len(self._found), len(self._skipped)) >= rows or self._bytes >= FLUSH_BYTES

    def take(self) -> tuple[pa.Table, pa.Table]:
        """Return (examples, skipped) and empty the batch."""
        fields = list(zip(*self._found, strict=True)) or [()] * 5
        ids, sources, numbers, conversations, metas = fields
        answers = [messages[-1]["content"] for messages in conversations]
        thoughts = [messages[-1].get(REASONING) or "" for messages in conversations]
        whole = map(str.__add__, thoughts, answers)
        columns = {
            "example_id": ids,
            "source": sources,
            "row": numbers,
            "messages": conversations,
            "prompt": list(map(prompt_text, conversations)),
            "answer": answers,
            "n_bytes": pc.binary_length(pa.array(whole, pa.string())).cast(pa.int64()),
            "is_refusal": list(map(is_refusal, answers)),
            "meta": metas,
        }
        examples = pa.table(columns, schema=EXAMPLES)
        skipped = pa.Table.from_pylist(self._skipped, schema=SKIPPED)
        self._clear()
        return examples, skipped

    def _clear(self) -> None:
        self._bytes = 0
        self._found: list[tuple[str, str, int, list[Message], str]] = []
        self._skipped: list[dict[str, Any]] = []

    def _example(self, number: int, messages: list[Message], meta: str) -> None:
        try:
            check_answer(messages)
            text = _canonical(messages)
        except Skip as skip:
            return self.skip(number, str(skip))
        self.count += 1
        self._bytes += 2 * len(text) + len(meta)
        self._found.append((_hash(text), self.source, number, messages, meta))
        return None
