"""`messages`: the format most trainers read, and the one that keeps every turn and key."""

from __future__ import annotations

import pyarrow as pa

from curate.formats.format import Format, turn_list, turns

MESSAGES = Format(
    name="messages",
    row=lambda messages, keys: {"messages": turns(messages, keys)},
    fields=lambda keys: [pa.field("messages", turn_list(keys))],
    keeps=lambda key: True,
    meant=frozenset({"messages", "conversations", "prompt", "completion", "text", "chosen"})
    | {"rejected", "input_ids", "labels", "images", "videos", "audios"},
)
