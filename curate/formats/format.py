"""What a format is: which columns a row has, and how a conversation becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Messages = Sequence[Mapping[str, Any]]
Keys = Mapping[str, pa.DataType]
"""The turns' own keys beside role and content, with their types: nullable in every turn."""


class Unfit(Exception):  # noqa: N818 - a verdict on one row
    """A conversation that a format, or a trainer, has no place for; the message says why."""


@dataclass(frozen=True)
class Format:
    """A row's columns and their writing.

    `row` turns messages into the conversation's columns; `fields` gives their Arrow types. Turn
    keys that it has no place for are not in `keeps(name)`. `meant` are other columns to which
    readers of the format give a meaning of their own, so that a customer's column of that name
    would change it. `trains_on`: the last answer alone, or every turn of the assistant.
    """

    name: str
    row: Callable[[Messages, Keys], dict[str, Any]]
    fields: Callable[[Keys], list[pa.Field]]
    keeps: Callable[[str], bool]
    meant: frozenset[str]
    trains_on: Literal["last", "all"] = "all"
    nulls: bool = True


def turns(messages: Messages, keys: Keys) -> list[dict[str, Any]]:
    """Turns with role, content and every key, null where a turn has none."""
    return [
        {"role": m["role"], "content": m["content"], **{key: m.get(key) for key in keys}}
        for m in messages
    ]


def turn_list(keys: Keys, role: str = "role", content: str = "content") -> pa.DataType:
    """The Arrow type of such turns."""
    others = [(name, kind) for name, kind in keys.items()]
    return pa.list_(pa.struct([(role, pa.string()), (content, pa.string()), *others]))
