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
MAX_REASONS = 1000  # the most reasons counted for a source: each broken row may have its own

Turns = Literal["last", "all"]


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
    batch_rows: int = 4096,
) -> Reader:
    """Read (examples, skipped) tables of about `batch_rows` rows, in the sources' order.

    `columns` maps roles (messages, prompt, answer, system, context, history, reasoning) to names of
    columns, for unknown layouts; `layouts` is a file of more layouts. `where` is a SQL condition
    over a source's own columns, `prompt` and `answer`. `limit` is the number of examples per
    argument (a file, a folder, a dataset), after `where` and without skipped rows. `turns="all"`
    makes an example of every assistant turn. With `prompts`, rows need no answer: it is empty if a
    row has none or ends with the user. Duplicates are kept. Memory does not grow with the number of
    rows.

    Raises:
        CurateError: a source can't be read or has an unknown layout; there is no usable row;
            `where` is invalid or true for no row; or, with `strict`, a row can't be used
            (`path:line: ...`).
    """
    known = replace(known_layouts(columns, layouts), prompts=prompts)
    return Reader(resolve(sources), known, where, turns, strict, limit, batch_rows)


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


@dataclass
class _State:
    """How far a source is read, and what is known of its layout."""

    source: Source
    layouts: Known  # those that its rows are read by
    lacking: set[str]  # named columns that no row so far has
    unread: Unread
    seen: int = 0  # rows of the source
    kept: int = 0  # of these, rows that `where` keeps
    read: int = 0  # of these, rows that were looked at: all but those beyond the limit
    examples: int = 0
    has_layout: bool = False  # whether any row has a known one
    unknown: str = ""  # why the first row without one has none
    reasons: Counter[str] = field(default_factory=Counter)  # of skipped rows

    @property
    def argument(self) -> str:
        """What the user gave, which may stand for several sources."""
        return self.source.asked or self.source.name

    def rows(self) -> Iterator[Raw]:
        """The rows of the source, counted."""
        for raw in rows(self.source):
            self.seen += 1
            yield raw


class Reader:
    """The tables of some sources, to iterate over once; `read` makes it.

    At the end, `notes` says what may belong to a conversation but was not read, and `empty` has a
    line for each source without an example, with the reasons.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        known: Known,
        where: str | None,
        turns: Turns,
        strict: bool,
        limit: int | None,
        batch_rows: int,
    ) -> None:
        self.notes: list[str] = []
        self.empty: list[str] = []
        self._turns, self._strict, self._limit, self._batch_rows = turns, strict, limit, batch_rows
        self._known = known
        # By these, a source of several is read that has none of the named columns.
        self._usual = replace(known, layouts=known.usual, named={})
        named = known.named.values()
        self._sources = [_State(each, known, set(named), Unread(known)) for each in sources]
        self._filter = None if where is None else RowFilter(where, self._texts)
        self._by_argument: Counter[str] = Counter()  # examples
        self._clear()

    def __iter__(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        for at in self._sources:
            self._at = at
            if self._limit and self._is_done():
                continue
            found = at.rows()
            if self._filter:
                found = self._filter.rows(at.source.name, found)
            for number, row in found:
                at.kept += 1
                if self._is_done():
                    break
                self._add(number, row)
                if self._is_full(self._batch_rows):
                    yield self._take()
            if not at.seen:
                self._skip(None, "the file is empty")
            self._check_layout()
            if at.reasons and not at.examples:
                most = at.reasons.most_common(3)
                why = "; ".join(f"{count:,} x {reason}" for reason, count in most)
                self.empty.append(f"{at.source}: no example could be read. Rows skipped: {why}")
        self._check_all()
        if self._is_full(1):
            yield self._take()
        self.notes += self._noted()

    def _check_layout(self) -> None:
        """After a source, or its first rows: reject it if no row has a known layout."""
        at = self._at
        if at.unknown and not at.has_layout:
            raise CurateError(
                f"{at.source}: {at.unknown}. Name them with --column ROLE=NAME; the roles are "
                f"{', '.join(COLUMNS)}. For turns of another shape, describe them in "
                "--layouts FILE."
            )
        lacking = at.lacking & self._known.extra
        if lacking and at.has_layout and len(self._sources) == 1:
            raise CurateError(f"{at.source}: no row has a column {min(lacking)!r}.")

    def _check_all(self) -> None:
        """After the last source: there must be rows and examples, with the named columns."""
        names = ", ".join(str(each.source) for each in self._sources[:3])
        seen = sum(each.seen for each in self._sources)
        if not seen:
            raise CurateError(f"{names}: no rows to read.")
        if self._filter and not any(each.kept for each in self._sources):
            raise CurateError(
                f"--where {self._filter.where!r} is true for none of the {seen} rows read."
            )
        lacking = [each.lacking for each in self._sources if each.read]
        if lacking and (everywhere := set.intersection(*lacking)):
            raise CurateError(f"{names}: no row has a column {min(everywhere)!r}.")
        if self.empty and not any(each.examples for each in self._sources):
            raise CurateError(self.empty[0])

    def _noted(self) -> list[str]:
        """What was not read from the sources, each thing once."""
        sources: dict[str, list[Source]] = {}
        for each in self._sources:
            if text := str(each.unread):
                sources.setdefault(text, []).append(each.source)
            if each.read and each.lacking:
                names = " or ".join(sorted(each.lacking))
                text = f"no column {names}; the usual names are read there"
                sources.setdefault(text, []).append(each.source)
        return [
            f"{first}{f' and {len(others)} more' if others else ''}: {text}"
            for text, (first, *others) in sources.items()
        ]

    def _is_done(self) -> bool:
        """Whether the argument that this source came from has reached its limit of examples."""
        return self._by_argument[self._at.argument] == self._limit

    def _add(self, number: int, row: dict[str, Any] | str) -> None:
        """Add a row's examples, or skip it with its reason."""
        at = self._at
        at.read += 1
        if at.read == HEAD_ROWS:
            self._check_layout()
        if isinstance(row, str):
            return self._skip(number, row)
        try:
            found = self._conversation(row)
            messages = messages_of(found.turns, at.layouts)
            meta = json_bytes({k: v for k, v in row.items() if k not in found.used}).decode()
        except UnknownFormat as skip:
            at.unknown = at.unknown or str(skip)
            if self._strict:
                self._check_layout()
            return self._skip(number, str(skip))
        except (Skip, TypeError) as error:
            at.has_layout = True
            why = str(error) if isinstance(error, Skip) else f"another column is not JSON ({error})"
            return self._skip(number, why)
        at.has_layout = True
        at.unread.look(row, found, messages)
        last = len(messages) - 1
        for place in range(last + 1) if self._turns == "all" else (last,):
            if messages[place]["role"] == "assistant" and not self._is_done():
                self._add_example(number, messages[: place + 1], meta)
        return None

    def _add_example(self, number: int, messages: list[Message], meta: str) -> None:
        try:
            check_answer(messages, self._at.layouts)
            text = _canonical(messages)
        except Skip as skip:
            return self._skip(number, str(skip))
        self._at.examples += 1
        self._by_argument[self._at.argument] += 1
        self._bytes += 2 * len(text) + len(meta)
        self._examples.append((_hash(text), self._at.source.name, number, messages, meta))
        return None

    def _conversation(self, row: dict[str, Any]) -> Conversation:
        """A row by the named columns; in a source of several that lacks all, by the usual ones."""
        at = self._at
        at.lacking &= still_lacking(at.lacking, row)
        try:
            return conversation(row, at.layouts)
        except UnknownFormat:
            named = set(at.layouts.named.values())
            if len(self._sources) == 1 or not named or at.lacking != named:
                raise
            found = conversation(row, self._usual)
            at.layouts = self._usual
            return found

    def _texts(self, row: dict[str, Any]) -> dict[str, str | None] | None:
        """A row's prompt and last answer, as in `examples`; None for an unknown layout."""
        try:
            messages = messages_of(self._conversation(row).turns, self._at.layouts)
        except UnknownFormat:
            return None
        except (Skip, TypeError):
            return {"prompt": None, "answer": None}
        return {"prompt": prompt_text(messages), "answer": messages[-1]["content"]}

    def _skip(self, number: int | None, reason: str) -> None:
        """Record a row (or, without a number, a source) that can't be used."""
        at = self._at
        if number is not None:
            if self._strict:
                raise CurateError(f"{at.source}:{number}: {reason}")
            if len(at.reasons) < MAX_REASONS or reason in at.reasons:
                at.reasons[reason] += 1
        self._skipped.append({"source": at.source.name, "row": number, "reason": reason})

    def _is_full(self, rows: int) -> bool:
        """Whether the batch has this many examples, as many skipped rows, or enough bytes."""
        longest = max(len(self._examples), len(self._skipped))
        return longest >= rows or self._bytes >= FLUSH_BYTES

    def _take(self) -> tuple[pa.Table, pa.Table]:
        """Return (examples, skipped) and empty the batch."""
        fields = list(zip(*self._examples, strict=True)) or [()] * 5
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
        self._examples: list[tuple[str, str, int, list[Message], str]] = []
        self._skipped: list[dict[str, Any]] = []
