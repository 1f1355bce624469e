"""The columns of a corpus's tables and Parquet parts: a public interface."""

from __future__ import annotations

import pyarrow as pa

REASONING = "reasoning_content"
"""What a turn was preceded by in thought, kept apart from its content; null in most turns."""

OLD_ANSWER = "old_answer"
"""The column of `curate answer`'s rows that holds what was answered before."""

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
"""One example: 32 hex digits, the file and its line (from 1), the messages with the answer last,
the prompt as people read it, the answer and its UTF-8 bytes (its reasoning's too), the paper's
refusal rule, and the source's other columns as a JSON object."""

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
"""One answer under one model: answer tokens scored, their log-probs' sum in nats, cut or not."""

TOKENS: tuple[pa.Field, ...] = (
    pa.field("token_logprobs", pa.list_(pa.float32())),
    pa.field("tokens", pa.list_(pa.string())),
)
"""What `--keep-tokens` adds: each answer token's log-prob in nats, and (in the aligned model's
parts alone, since models that are compared by token cut an answer alike) the tokens' texts."""

SCORED: pa.Schema = pa.schema([*SCORES, *TOKENS])
"""All that a part of scores may hold."""


KEY: pa.Field = pa.field("example_id", pa.uuid(), nullable=False)
"""The id as parts of examples and scores hold it: a number of 128 bits, half as large as its 32
digits, which joins and groups several times faster."""


def keyed(table: pa.Table) -> pa.Table:
    """A table of examples or scores as its part holds it: see `KEY`."""
    ids = pa.array(map(bytes.fromhex, table["example_id"].to_pylist()), pa.binary(16))
    return table.set_column(0, KEY, pa.ExtensionArray.from_storage(KEY.type, ids))
