"""Alpaca: `instruction`, `input`, `output`, with `system` and earlier turns in `history`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curate.formats.format import Format, Keys, Messages, Unfit
from curate.formats.messages import MESSAGES


def _row(messages: Messages, keys: Keys) -> dict[str, Any]:
    """`input` is always there (readers ask for it) and empty: the prompt is one text."""
    turns = list(messages)
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
    if system is not None and not system.strip():
        raise Unfit("an empty system turn, which Alpaca can't tell from none")
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise Unfit("turns other than questions and answers in turn, which Alpaca can't hold")
    if any(turn["content"] is None for turn in turns):
        raise Unfit("a turn with tool calls, which Alpaca has no place for")
    texts = [turn["content"] for turn in turns]
    history = [[texts[at], texts[at + 1]] for at in range(0, len(texts) - 2, 2)]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": history,
    }


def _fields(keys: Keys) -> list[pa.Field]:
    texts = [pa.field(name, pa.string()) for name in ("instruction", "input", "output", "system")]
    return [*texts, pa.field("history", pa.list_(pa.list_(pa.string())))]


ALPACA = Format(
    name="alpaca",
    row=_row,
    fields=_fields,
    keeps=lambda key: False,
    meant=MESSAGES.meant | {"instruction", "input", "output", "system", "history", "response"},
)
