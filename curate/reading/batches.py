"""Rows -> Arrow tables of examples and of skipped rows, one batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.reading.files import ROW_BYTES, TOO_LONG
from curate.reading.filters import json_bytes
from curate.reading.layouts import Columns, Message, Skip, UnknownFormat, check_answer, parse
from curate.reading.refusals import is_refusal
from curate.storage.schema import EXAMPLES, MESSAGES, SKIPPED

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
