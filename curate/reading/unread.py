"""Columns and turns' keys that may belong to a conversation and were not read: reported once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.reading.known import Known
from curate.reading.layouts import Conversation, Message, Row
from curate.reading.turns import Turn, is_blank
from curate.storage.schema import OLD_ANSWER

ROWS, WORDS = 1000, 10
"""In a source's first rows, text of so many words is looked at whatever its column is called."""
SHORT = 20
"""Text of no more characters may stand in a conversation by chance."""
NO_OPTION = "no option takes it"


class Unread:
    """What one source's rows hold beside their messages, by name, with the option that takes it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._rows = 0
        self._columns: dict[str, str] = {}
        self._keys: dict[str, str] = {}

    def look(self, row: Row, found: Conversation, messages: Sequence[Message]) -> None:
        """Note what a row holds that its messages don't."""
        self._rows += 1
        for name in row.keys() - found.used - self._columns.keys():
            role = self._role(name, row[name])
            if role is not None and not _repeats(row[name], messages):
                option = _option(role, name, whole="prompt" not in found.columns)
                if role == "system" and messages[0]["role"] == role:
                    option = "the messages have a system turn of their own"
                self._columns[name] = option
        for turn in found.turns:
            if len(turn) > 2:
                self._look_at_keys(turn)

    def __str__(self) -> str:
        """One line, '' if there is nothing to say."""
        names = [f"{name} ({option})" for name, option in sorted(self._columns.items())]
        names += [f"the turns' {name} ({option})" for name, option in sorted(self._keys.items())]
        if not names:
            return ""
        return f"not read, but it may belong to the conversation: {', '.join(names)}"

    def _role(self, name: str, value: Any) -> str | None:
        """The role that a column or key may have; None if it says nothing, or is another thing."""
        if name == OLD_ANSWER:
            return None
        role = self._known.hints.get(str(name).casefold())
        if role is not None:
            return None if role in self._known.named or is_blank(value) else role
        long = self._rows <= ROWS and isinstance(value, str)
        return "context" if long and len(value.split(None, WORDS)) >= WORDS else None

    def _look_at_keys(self, turn: Turn) -> None:
        keys, answers = self._known.keys, turn["role"] == "assistant"
        for key, value in turn.items():
            if key in ("role", "content", *keys["calls"]) or key in self._keys:
                continue
            if key in keys["trained"]:
                told = answers and value not in (None, 0, 1)
            elif key in keys["reasoning"] and answers and isinstance(value, str):
                told = False
            else:
                told = self._role(key, value) is not None and value != turn["content"]
            if told:
                reasons = self._role(key, value) == "reasoning"
                self._keys[key] = "turns.reasoning of --layouts takes it" if reasons else NO_OPTION


def _option(role: str, name: str, *, whole: bool) -> str:
    """The option that reads a column; `whole` is a conversation in one column."""
    if whole and role == "answer":
        role = "messages"
    if role == "none" or (whole and role == "history"):
        return NO_OPTION
    return f"--column {role}={name} takes it"


def _repeats(value: Any, messages: Sequence[Message]) -> bool:
    """Whether a column's text is in the conversation, or the whole conversation in it."""
    if not isinstance(value, str):
        return False
    text, contents = value.strip(), [message["content"] for message in messages]
    inside = any(text == each.strip() or (len(text) > SHORT and text in each) for each in contents)
    return inside or all(each in value for each in contents)
