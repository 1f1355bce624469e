"""The OpenAI-style fine-tuning API: `messages` in JSON Lines, and what the API would reject.

The rules are those of the published reference and of the cookbook's data preparation notebook: JSON
Lines of {"messages": [...]}; the roles system, developer, user, assistant and tool; text in every
message except for an assistant's with tool calls; `weight` 0 or 1, on answers only; at least one
trained answer per example, at least 10 examples, and at most 512 MB per file. Null keys are left
out, because the API's schema depends on the role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.formats.base import Format, Keys, Messages, Unfit, turn_list

ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
TURN_KEYS = {"name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal"}
ANSWER_KEYS = {"weight", "tool_calls", "function_call", "refusal"}
COLUMNS = frozenset({"messages", "tools", "functions", "parallel_tool_calls"})
MIN_EXAMPLES = 10
MAX_BYTES = 512 * 1000 * 1000


def _row(messages: Messages, keys: Keys) -> dict[str, Any]:
    made = []
    for turn in messages:
        others = {key: turn[key] for key in keys if turn.get(key) is not None}
        made.append({"role": turn["role"], "content": turn["content"], **others})
    if fault := next(faults(made), None):
        raise Unfit(fault)
    return {"messages": made}


def faults(turns: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the API would reject in one conversation, which has an answer."""
    for turn in turns:
        role = turn["role"]
        if role not in ROLES:
            yield f"the role {role!r}, which the API doesn't accept"
        if role == "tool" and not turn.get("tool_call_id"):
            yield "a tool's turn without tool_call_id"
        for key in ANSWER_KEYS & turn.keys() if role != "assistant" else ():
            yield f"{key!r} on a turn that is not the assistant's"
        weight = turn.get("weight", 1)
        if weight not in (0, 1) or isinstance(weight, bool):
            yield f"weight {weight}, which has to be 0 or 1"
    if not any(turn.get("weight", 1) for turn in turns if turn["role"] == "assistant"):
        yield "no answer with weight 1: nothing to train on"
    if turns[-1]["role"] != "assistant":
        yield "turns after the last answer: the last message must be the assistant's"


OPENAI = Format(
    name="openai",
    row=_row,
    fields=lambda keys: [pa.field("messages", turn_list(keys))],
    keeps=lambda key: key in TURN_KEYS,
    meant=frozenset({"messages"}),
    nulls=False,
    columns=COLUMNS,
)
