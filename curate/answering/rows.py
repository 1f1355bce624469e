"""An answer as a row: the conversation with the new answer last, the old one, a mark, and the rest.

Rows are stored in Parquet parts, all of a prompt's samples in the same one, so that a prompt is
answered or missing as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.views import read_parquet
from curate.corpus.writer import next_flush
from curate.reading.refusals import is_refusal
from curate.storage import parts
from curate.storage.schema import MESSAGES, OLD_ANSWER
from curate.system.sql import readable_errors, spill_folder
from curate.system.stopping import held

Mark = Literal["empty", "repeats", "cut", "refusal"]

UNTRAINED = ("empty", "repeats", "cut")
"""Marks of answers that have weight 0, by which curate and trainers leave a turn out."""
REPEATS = 16
"""This many equal tokens at the end of an answer mean that the model is stuck."""
FLUSH_ROWS, FLUSH_CHARACTERS = 8_192, 32 << 20

_MESSAGE = MESSAGES.value_type
COLUMNS: pa.Schema = pa.schema(
    [
        ("messages", pa.list_(pa.struct([*_MESSAGE, pa.field("weight", pa.int8())]))),
        ("answer", pa.string()),
        (OLD_ANSWER, pa.string()),
        ("mark", pa.string()),
        ("finish", pa.string()),
        ("n_tokens", pa.int32()),
        ("model", pa.string()),
        ("sample", pa.int32()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("prompt_id", pa.string()),
    ]
)
"""What every row has; docs/answers.md says what each column means."""


@dataclass
class Pending:
    """A prompt whose samples are being written: its row, and the ids of finished samples."""

    row: Mapping[str, Any]
    begin: str
    samples: dict[int, list[int]] = field(default_factory=dict)
    refused: bool = False


def mark_of(answer: str, ids: Sequence[int], finish: str) -> Mark | None:
    """What is wrong with an answer, the worst first; `ids` leaves out the token that ended it."""
    if not answer.rpartition("</think>")[2].strip():
        return "empty"
    if len(ids) >= REPEATS and len(set(ids[-REPEATS:])) == 1:
        return "repeats"
    if finish == "length":
        return "cut"
    return "refusal" if is_refusal(answer) else None


def rows_of(
    pending: Pending, tokenizer: Any, ends: Sequence[int], model: str
) -> list[dict[str, Any]]:
    """The rows of a prompt's samples, in order."""
    row = pending.row
    found = []
    for sample, ids in sorted(pending.samples.items()):
        finish = "stop" if ids[-1] in ends else "length"
        kept = ids[:-1] if finish == "stop" else ids
        written = tokenizer.decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        answer = pending.begin + written
        mark = mark_of(answer, kept, finish)
        turn = {"role": "assistant", "content": answer, "weight": 0 if mark in UNTRAINED else None}
        own = {
            "messages": [*row["messages"], turn],
            "answer": answer,
            OLD_ANSWER: row["answer"] or None,
            "mark": mark,
            "finish": finish,
            "n_tokens": len(kept),
            "model": model,
            "sample": sample,
            "source": row["source"],
            "row": row["row"],
            "prompt_id": row["example_id"],
        }
        found.append(own | _others(orjson.loads(row["meta"])))
    return found


def _others(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A source's other columns; one whose name is taken here gets `old_` before it."""
    found: dict[str, Any] = {}
    for name, value in meta.items():
        while name.casefold() in COLUMNS.names or name in found:
            name = f"old_{name}"
        found[name] = value
    return found


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; other columns keep their types, or become JSON text if Parquet has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        known = name in COLUMNS.names
        columns[name] = pa.array(values, COLUMNS.field(name).type) if known else _array(values)
    return pa.table(columns)


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError):
        array = None
    if array is None or "struct" in str(array.type):
        texts = [None if value is None else orjson.dumps(value).decode() for value in values]
        return pa.array(texts, pa.string())
    return array


class Sink:
    """Collects rows and stores them in parts now and then, at the latest at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._characters = 0
        self._began = time.monotonic()
        self._due = next_flush(self._began)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take all rows of one prompt."""
        self._rows += rows
        self._characters += sum(len(m["content"]) for row in rows for m in row["messages"])
        full = len(self._rows) >= FLUSH_ROWS or self._characters >= FLUSH_CHARACTERS
        if full or time.monotonic() >= self._due:
            self.flush()

    @held()
    def flush(self) -> None:
        """Store what was collected; a signal to stop waits until this is done."""
        rows, self._rows, self._characters = self._rows, [], 0
        if rows:
            parts.write_part(self._folder, table_of(rows))
        self._due = next_flush(self._began)


def write_file(folder: Path, output: Path) -> None:
    """Write all parts of a folder into one .jsonl or .parquet file, whole or not at all."""
    kind = {".jsonl": "json", ".parquet": "parquet, compression zstd"}[output.suffix]
    rows = _rows_of(parts.list_parts(folder))
    spill: dict[str, Any] = {"temp_directory": spill_folder()}
    with (
        readable_errors(),
        parts.atomic(output) as temporary,
        duckdb.connect(config=spill) as connection,
    ):
        copy = f"copy (from {rows}) to $path (format {kind})"
        connection.execute(copy, {"path": str(temporary)})


def _rows_of(found: Sequence[Path]) -> str:
    """SQL for the rows of all parts. A column with lists in some and other types in others is text.

    DuckDB would cast the other types to lists, which loses values or fails.
    """
    schemas = [pq.read_schema(part) for part in found]
    kinds: dict[str, set[pa.DataType]] = {}
    for column in chain.from_iterable(schemas):
        kinds.setdefault(column.name.casefold(), set()).add(column.type)
    clash = {name for name, types in kinds.items() if _clash(types)}
    if not clash:
        return read_parquet(found, "union_by_name = true")
    selects = []
    for part, schema in zip(found, schemas, strict=True):
        as_text = ", ".join(
            f"to_json({quoted})::varchar as {quoted}"
            for column in schema
            if column.name.casefold() in clash and pa.types.is_list(column.type)
            for quoted in [_quoted(column.name)]
        )
        replaced = f"* replace ({as_text})" if as_text else "*"
        selects.append(f"select {replaced} from {read_parquet([part])}")
    return f"({' union all by name '.join(selects)})"


def _clash(types: Collection[pa.DataType]) -> bool:
    """Whether lists meet another type. Nulls, and lists of nulls or without items, fit any list."""
    if not any(map(pa.types.is_list, types)):
        return False
    valued = [
        each
        for each in types
        if not pa.types.is_null(each.value_type if pa.types.is_list(each) else each)
    ]
    return len(valued) > 1 or not all(map(pa.types.is_list, valued))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
