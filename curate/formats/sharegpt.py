"""ShareGPT: `conversations` of turns with `from` and `value`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curate.formats.format import Format, Keys, Messages, Unfit, turn_list
from curate.formats.messages import MESSAGES

NAMES = {"user": "human", "assistant": "gpt"}
CALLS = {"tool_calls", "function_call", "tool_call_id"}


def _row(messages: Messages, keys: Keys) -> dict[str, Any]:
    made = []
    for turn in messages:
        if any(turn.get(key) for key in CALLS) or turn["content"] is None:
            raise Unfit("a turn with tool calls, which ShareGPT has no place for")
        others = {key: turn.get(key) for key in keys}
        role = turn["role"]
        made.append({"from": NAMES.get(role, role), "value": turn["content"], **others})
    return {"conversations": made}


SHAREGPT = Format(
    name="sharegpt",
    row=_row,
    fields=lambda keys: [pa.field("conversations", turn_list(keys, "from", "value"))],
    keeps=lambda key: key not in {"from", "value"},
    meant=MESSAGES.meant | {"system"},
)
