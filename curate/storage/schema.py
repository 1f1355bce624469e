"""The columns of a corpus's tables and Parquet parts: a public interface."""

from __future__ import annotations

import pyarrow as pa

REASONING = "reasoning_content"
"""The reasoning before a turn's content; null in most turns."""

OLD_ANSWER = "old_answer"
"""The column with the original answer in the rows of `curate answer`."""

MESSAGES = pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", REASONING)]))

EXAMPLES: pa.Schema = pa.schema(
    [
        ("example_id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("messages", MESSAGES),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("n_bytes", pa.int64()),
        ("is_refusal", pa.bool_()),
        ("meta", pa.string()),
    ]
)
"""One example: its id (32 hex digits), the source and its line (from 1), the messages with the
answer last, the prompt as readable text, the answer and its UTF-8 bytes (including reasoning), the
result of the paper's refusal rule, and the source's other columns as a JSON object."""

SKIPPED: pa.Schema = pa.schema(
    [
        ("example_id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("model", pa.string()),
        ("reason", pa.string()),
    ]
)
"""A row that could not be read (source and row), or an example that a model could not score."""

SCORES: pa.Schema = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("logprob", pa.float64(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
    ]
)
"""One answer under one model: the number of scored tokens, the sum of their log-probabilities in
nats, and whether the answer was truncated."""

TOKENS: tuple[pa.Field, ...] = (
    pa.field("token_logprobs", pa.list_(pa.float32())),
    pa.field("tokens", pa.list_(pa.string())),
)
"""The columns of `--keep-tokens`: each answer token's log-probability in nats and, only in the
aligned model's parts, the tokens' texts (models compared by token split an answer alike)."""

SCORED: pa.Schema = pa.schema([*SCORES, *TOKENS])
"""All columns that a part of scores may have."""


KEY: pa.Field = pa.field("example_id", pa.uuid(), nullable=False)
"""The id in parts of examples and scores: a 128-bit number, which takes half the space of its 32
digits, and is several times faster in joins and groups."""


def keyed(table: pa.Table) -> pa.Table:
    """A table of examples or scores with its id as a number (`KEY`)."""
    ids = pa.array(map(bytes.fromhex, table["example_id"].to_pylist()), pa.binary(16))
    return table.set_column(0, KEY, pa.ExtensionArray.from_storage(KEY.type, ids))
