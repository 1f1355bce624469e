"""Any input format -> one Arrow schema with a stable id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.reading.addresses import Source
from curate.reading.files import Raw
from curate.reading.known import COLUMNS, Known, known_layouts, still_lacking
from curate.reading.layouts import (
    Conversation,
    Message,
    UnknownFormat,
    check_answer,
    conversation,
    messages_of,
)
from curate.reading.refusals import load as load_rule
from curate.reading.sources import resolve, rows
from curate.reading.turns import Skip
from curate.reading.unread import Unread
from curate.reading.where import RowFilter, json_bytes
from curate.storage.schema import EXAMPLES, REASONING, SKIPPED

FLUSH_BYTES = 64 << 20  # a batch of this size is full, however few rows it has
HEAD_ROWS = 1000  # if these first rows have no known layout, the source is rejected at once
MAX_REASONS = 1000  # counted separately; every broken row may have its own

Turns = Literal["last", "all"]


@dataclass
class Told:
    """Results of reading besides the tables: notes, and sources without a usable row."""

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
    prompts: bool = False,
    strict: bool = False,
    told: Told | None = None,
    batch_rows: int = 4096,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield (examples, skipped) tables of about `batch_rows` rows, in the sources' order.

    `columns` maps roles (messages, prompt, answer, system, context, history, reasoning) to names of
    columns, for unknown layouts; `layouts` is a file of more layouts. `where` is a SQL condition
    over a source's own columns, `prompt` and `answer`. `limit` is the number of examples per
    argument (a file, a folder, a dataset), after `where` and without skipped rows. `turns="all"`
    makes an example of every assistant turn. With `prompts`, rows need no answer: it is empty if a
    row has none or ends with the user. `told` is filled at the end. Duplicates are kept. Memory
    does not grow with the number of rows.

    Raises:
        CurateError: a source can't be read or has an unknown layout; there is no usable row;
            `where` is invalid or true for no row; or, with `strict`, a row can't be used
            (`path:line: ...`).
    """
    known = replace(known_layouts(columns, layouts), prompts=prompts)
    found = resolve(sources)
    batch = _Batch(known, turns, strict, limit, several=len(found) > 1)
    keep = None if where is None else RowFilter(where, batch.texts)
    return _batches(found, keep, batch, told or Told(), batch_rows)


def _batches(
    sources: list[Source], keep: RowFilter | None, batch: _Batch, told: Told, batch_rows: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Fill the batch from every source, and yield it whenever it is full."""
    seen = kept = 0

    def counted(source: Source) -> Iterator[Raw]:
        nonlocal seen
        for raw in rows(source):
            seen += 1
            yield raw

    for source in sources:
        batch.begin(source)
        if seen and batch.is_done():
            continue
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
    if lacked := batch.lacked():
        raise CurateError(f"{', '.join(map(str, sources[:3]))}: no row has a column {lacked!r}.")
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
    """Return the turns before the answer as readable text; a single user turn is its bare text."""
    if len(messages) == 2 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages[:-1])


class _Batch:
    """Collects examples and skipped rows into two tables."""

    def __init__(
        self, known: Known, turns: Turns, strict: bool, limit: int | None, *, several: bool
    ) -> None:
        self.turns, self.strict, self.limit = turns, strict, limit
        self.count = 0  # examples in all, over every batch
        self._given_layouts = known
        self._usual = replace(known, layouts=known.usual, named={}) if several else None
        self._lacking_by: dict[str, set[str]] = {}  # named columns that sources lack
        self._unread: dict[str, Unread] = {}
        self._given: Counter[str] = Counter()  # examples by the argument that meant their source
        self._clear()

    def begin(self, source: Source) -> None:
        """Start the next source."""
        self.source, self._asked = source.name, source.asked or source.name
        self._layouts = self._given_layouts
        self._unread[self.source] = Unread(self._layouts)
        self._reasons: Counter[str] = Counter()
        self._before = self.count
        self._known, self._unknown = False, ""
        self._added = 0
        self._lacking = set(self._layouts.named.values())

    def is_done(self) -> bool:
        """Return whether the argument has reached the limit of examples."""
        return self._given[self._asked] == self.limit

    def end(self) -> None:
        """Finish a source, or its first rows.

        Raises:
            CurateError: no row so far has a known layout, or a named column.
        """
        if self._unknown and not self._known:
            raise CurateError(
                f"{self.source}: {self._unknown}. Name them with --column ROLE=NAME; the roles are "
                f"{', '.join(COLUMNS)}. For turns of another shape, describe them in "
                "--layouts FILE."
            )
        lacking = self._lacking & self._given_layouts.extra
        if lacking and self._known and not self._usual:
            raise CurateError(f"{self.source}: no row has a column {min(lacking)!r}.")

    def lacked(self) -> str | None:
        """A named column that no source has."""
        return min(set.intersection(*self._lacking_by.values() or [set()]), default=None)

    def empty(self) -> list[str]:
        """For a source whose rows were all skipped, a line with the reasons."""
        rows = self._reasons.total()
        if self.count > self._before or not rows:
            return []
        why = "; ".join(f"{count:,} x {reason}" for reason, count in self._reasons.most_common(3))
        return [f"{self.source}: no example could be read. Rows skipped: {why}"]

    def notes(self) -> list[str]:
        """What was not read from the sources so far, each thing once."""
        named: dict[str, list[str]] = {}
        for source, unread in self._unread.items():
            if str(unread):
                named.setdefault(str(unread), []).append(source)
            if lacking := self._lacking_by.get(source):
                what = f"no column {' or '.join(sorted(lacking))}; the usual names are read there"
                named.setdefault(what, []).append(source)
        return [
            first + (f" and {len(others)} more" if others else "") + f": {what}"
            for what, (first, *others) in named.items()
        ]

    def add(self, number: int, row: dict[str, Any] | str) -> None:
        """Add a row's examples, or skip it with its reason.

        Raises:
            CurateError: no row so far has a known layout or, if strict, this row can't be used.
        """
        self._added += 1
        self._lacking_by[self.source] = self._lacking
        if self._added == HEAD_ROWS:
            self.end()
        if isinstance(row, str):
            return self.skip(number, row)
        try:
            found = self._conversation(row)
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

    def _conversation(self, row: dict[str, Any]) -> Conversation:
        """A row by the named columns; in a source of several that lacks all, by the usual ones."""
        self._lacking &= still_lacking(self._lacking, row)
        try:
            return conversation(row, self._layouts)
        except UnknownFormat:
            named = set(self._layouts.named.values())
            if self._usual is None or not named or self._lacking != named:
                raise
            found = conversation(row, self._usual)
            self._layouts = self._usual
            return found

    def texts(self, row: dict[str, Any]) -> dict[str, str | None] | None:
        """A row's prompt and last answer, as in `examples`; None for an unknown layout."""
        try:
            messages = messages_of(self._conversation(row).turns, self._layouts)
        except UnknownFormat:
            return None
        except (Skip, TypeError):
            return {"prompt": None, "answer": None}
        return {"prompt": prompt_text(messages), "answer": messages[-1]["content"]}

    def skip(self, number: int | None, reason: str) -> None:
        """Record a row (or, without a number, a source) that can't be used.

        Raises:
            CurateError: the reading is strict.
        """
        if self.strict and number is not None:
            raise CurateError(f"{self.source}:{number}: {reason}")
        if number is not None and (len(self._reasons) < MAX_REASONS or reason in self._reasons):
            self._reasons[reason] += 1
        self._skipped.append({"source": self.source, "row": number, "reason": reason})

    def is_full(self, rows: int) -> bool:
        """Return whether it has this many examples, as many skipped rows, or enough bytes."""
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
            "is_refusal": load_rule("paper").matches(answers),
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
            check_answer(messages, self._layouts)
            text = _canonical(messages)
        except Skip as skip:
            return self.skip(number, str(skip))
        self.count += 1
        self._given[self._asked] += 1
        self._bytes += 2 * len(text) + len(meta)
        self._found.append((_hash(text), self.source, number, messages, meta))
        return None
