"""Reports columns and turn keys that may belong to a conversation but were not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.reading.known import Known
from curate.reading.layouts import Conversation, Message, Row
from curate.reading.turns import Skip, Turn, is_blank, text_of, turns_in, turns_of
from curate.storage.schema import OLD_ANSWER

ROWS, WORDS = 1000, 10
"""In a source's first rows, text of this many words is checked, whatever its column is called."""
SHORT = 20
"""Text of at most this many characters may occur in a conversation by coincidence."""
NO_OPTION = "no option reads it"


class Unread:
    """What one source's rows hold besides their messages, with the option that reads it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._rows = 0
        self._columns: dict[str, str] = {}
        self._keys: dict[str, str] = {}

    def look(self, row: Row, found: Conversation, messages: Sequence[Message]) -> None:
        """Note the parts of a row that are not in its messages."""
        self._rows += 1
        for name in row.keys() - found.used - self._columns.keys():
            role = self._role(name, row[name])
            if role is not None and not _repeats(row[name], messages):
                option = _option(role, name, row[name], found, self._known)
                if role == "system" and messages[0]["role"] == role:
                    option = "the messages have their own system turn"
                self._columns[name] = option
        for turn in found.turns:
            if len(turn) > 2:
                self._look_at_keys(turn)

    def __str__(self) -> str:
        """A note of one line, or ''."""
        names = [f"{name} ({option})" for name, option in sorted(self._columns.items())]
        names += [f"the turn key {name} ({option})" for name, option in sorted(self._keys.items())]
        if not names:
            return ""
        return f"not read, but possibly part of the conversation: {', '.join(names)}"

    def _role(self, name: str, value: Any) -> str | None:
        """The role that a column or key may have, or None."""
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
                belongs = answers and value not in (None, 0, 1)
            elif key in keys["reasoning"] and answers and isinstance(value, str):
                belongs = False
            else:
                belongs = self._role(key, value) is not None and value != turn["content"]
            if belongs:
                reasons = self._role(key, value) == "reasoning" and answers
                reasons = reasons and isinstance(value, str)
                self._keys[key] = "turns.reasoning of --layouts reads it" if reasons else NO_OPTION


def _option(role: str, name: str, value: Any, found: Conversation, known: Known) -> str:
    """The option that reads a column, if one can read its values."""
    whole = "prompt" not in found.columns  # a conversation in one column
    if whole and role == "answer":
        role = "messages"
    if role == "none" or (whole and role == "history"):
        return NO_OPTION
    try:
        if role in ("messages", "history"):
            turns_of(value, known)
        elif role == "answer":
            [text_of(turn["content"]) for turn in turns_in(value, "assistant", known)]
        else:
            text_of(value)
    except Skip as skip:
        return f"{NO_OPTION}: {skip}"
    instead = role == "messages" or role in found.columns
    return f"--column {role}={name} reads it{' instead' if instead else ''}"


def _repeats(value: Any, messages: Sequence[Message]) -> bool:
    """Whether a column's text is in the conversation, or the whole conversation in it."""
    if not isinstance(value, str):
        return False
    text, contents = value.strip(), [message["content"] for message in messages]
    inside = any(text == each.strip() or (len(text) > SHORT and text in each) for each in contents)
    return inside or all(each in value for each in contents)
