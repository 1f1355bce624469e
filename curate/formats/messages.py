"""`messages` rows, the format most trainers read: one schema in every row, nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import CurateError

Conversation = Sequence[dict[str, str]]

SCHEMA = pa.schema(
    [pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))]
)


def writer_for(path: Path) -> Callable[[Sequence[Conversation], Path], None]:
    """The writer that a file's ending asks for.

    Raises:
        CurateError: the ending is neither .jsonl nor .parquet.
    """
    writers = {".jsonl": write_jsonl, ".parquet": write_parquet}
    if path.suffix not in writers:
        raise CurateError(f"{path}: name an output that ends in .jsonl or .parquet")
    return writers[path.suffix]


def write_jsonl(conversations: Sequence[Conversation], path: Path) -> None:
    """One JSON object with the key `messages` per line."""
    with path.open("wb") as file:
        for messages in conversations:
            file.write(orjson.dumps({"messages": messages}, option=orjson.OPT_APPEND_NEWLINE))


def write_parquet(conversations: Sequence[Conversation], path: Path) -> None:
    """The same rows as one Parquet column."""
    table = pa.table({"messages": [list(messages) for messages in conversations]}, schema=SCHEMA)
    pq.write_table(table, path, compression="zstd")
