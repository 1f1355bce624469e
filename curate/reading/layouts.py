"""Rows of any known format -> chat messages.

Known formats: `messages` (role/content), ShareGPT `conversations` (from/value), Alpaca
`instruction`/`input`/`output`, `prompt`/`response` and `prompt`/`completion`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

Message = dict[str, str]
Row = dict[str, Any]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
TOOL_ROLES = {"tool", "function", "function_call", "function_response", "observation", "ipython"}
LISTS = ("messages", "conversations")
MAX_NAMES, MAX_NAMES_LENGTH = 30, 600  # of columns, in a message
PAIRS = (("instruction", "output"), ("prompt", "response"), ("prompt", "completion"))


class Skip(Exception):  # noqa: N818 - it is a verdict on one row, not an error
    """A row that can't be used; the message is the reason, as `skipped` shows it."""


class UnknownFormat(Skip):
    """A row whose columns belong to no known format."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read, where a source does not use the usual ones."""

    messages: str | None = None
    prompt: str | None = None
    answer: str | None = None
    system: str | None = None


def parse(row: Row, columns: Columns) -> tuple[list[Message], set[str]]:
    """Return the row's messages up to its last assistant turn, and the columns they came from.

    Raises:
        UnknownFormat: no known set of columns is there.
        Skip: the row can't be used; the reason is the message.
    """
    turns, used = raw_turns(row, columns)
    return with_system(_upto_answer(turns), row, columns, used)


def raw_turns(row: Row, columns: Columns) -> tuple[list[Any], set[str]]:
    """Return the row's turns as they stand in it, unchecked, and the columns they came from.

    Raises:
        UnknownFormat, Skip: as `parse` does.
    """
    if columns.prompt is None and columns.answer is None:
        for name in LISTS if columns.messages is None else (columns.messages,):
            if row.get(name) is not None:
                return _decoded(row[name]), {name}
    prompt, answer = _pair(row, columns)
    turns, used = _prompt(row, prompt)
    return turns + _turns(row[answer], "assistant"), used | {answer}


def conversation(row: Row, columns: Columns) -> list[Message]:
    """Return a row of any known format as messages, the answer (an assistant turn) last.

    Turns after the last assistant turn are cut off; of every turn only role and content stay.

    Raises:
        UnknownFormat: no known set of columns is there.
        Skip: the row has no usable answer; the reason is the message.
    """
    messages, _ = parse(row, columns)
    check_answer(messages)
    return messages


def check_answer(messages: list[Message]) -> None:
    """Raise `Skip` if the last turn is no answer that can be scored."""
    if not messages[-1]["content"].strip():
        raise Skip("empty answer")
    if len(messages) == 1:
        raise Skip("no prompt: the conversation begins with the answer")


def _pair(row: Row, columns: Columns) -> tuple[str, str]:
    """Find the names of the prompt's and the answer's columns."""
    named = columns.prompt is not None or columns.answer is not None
    lists = () if named else LISTS if columns.messages is None else (columns.messages,)
    pairs = [(columns.prompt or p, columns.answer or a) for p, a in PAIRS]
    present = [
        (p, a) for p, a in pairs if p in row and a in row and (named or not columns.messages)
    ]
    if not present:
        if any(name in row for name in lists):
            raise Skip("no messages (null)")
        found = _names(row)
        asked = [name for name in (columns.messages, columns.prompt, columns.answer) if name]
        lacking = next((name for name in asked if name not in row), None)
        if lacking:
            raise UnknownFormat(f"no column {lacking!r}: the columns are {found}")
        raise UnknownFormat(f"unknown format: the columns are {found}")
    for prompt, answer in present:
        if row[prompt] is not None and row[answer] is not None:
            return prompt, answer
    if all(row[answer] is None for _, answer in present):
        raise Skip("no answer (null)")
    raise Skip("no prompt (null)")


def _names(row: Row) -> str:
    """Return a row's columns for a message; broken data may have very many, or very long ones."""
    words = (" ".join(str(name).split()) or repr(name) for name in islice(row, MAX_NAMES))
    names = ", ".join(words)[:MAX_NAMES_LENGTH] or "none"
    return names + (f" and others ({len(row)} in all)" if len(row) > MAX_NAMES else "")


def _prompt(row: Row, name: str) -> tuple[list[Any], set[str]]:
    """Return the turns before the answer and the columns used; Alpaca has two more of them."""
    if name != "instruction":
        return _turns(row[name], "user"), {name}
    messages: list[Any] = []
    history = row.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in history
    ):
        raise Skip("the history is not a list of (question, answer)")
    for question, answer in history:
        messages.append({"role": "user", "content": text_of(question)})
        messages.append({"role": "assistant", "content": text_of(answer)})
    text, extra = text_of(row[name]), row.get("input")
    if extra is not None and text_of(extra).strip():
        text = f"{text}\n{text_of(extra)}"
    messages.append({"role": "user", "content": text})
    return messages, {name, "input", "history"}


def _turns(value: Any, role: str) -> list[Any]:
    """Return a prompt or an answer as turns: text is one turn, a list has turns already."""
    if isinstance(value, list) and all(isinstance(turn, dict) and role_of(turn) for turn in value):
        return list(value)
    return [{"role": role, "content": value}]


def _decoded(value: Any) -> list[Any]:
    """Return a list of turns, from JSON text if need be (CSV cells)."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise Skip("the messages are text that is not JSON") from None
    if not isinstance(value, list):
        raise Skip("the messages are not a list")
    return value


def role_of(turn: Any) -> Any:
    """Return a turn's role as it is named there, None if it has none."""
    return turn.get("role") or turn.get("from")


def _upto_answer(turns: list[Any]) -> list[Message]:
    """Check the turns and return them as messages, the last assistant turn last."""
    roles = list(_roles(turns))
    while roles and roles[-1] != "assistant":
        roles.pop()
    if not roles:
        raise Skip("no assistant turn")
    messages: list[Message] = []
    for role, turn in zip(roles, turns, strict=False):
        content = turn.get("content", turn.get("value"))
        if type(content) is not str:
            if content is None and len(messages) + 1 == len(roles):
                raise Skip("no answer (null)")
            content = text_of(content)
        messages.append({"role": role, "content": content})
    return messages


def _roles(turns: list[Any]) -> Iterator[str]:
    """Yield each turn's role under its usual name; refuse tools."""
    for turn in turns:
        if not isinstance(turn, dict):
            raise Skip("a turn is not an object with role and content")
        name = role_of(turn)
        role = ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            name = _shown(name).lower()
            if name in TOOL_ROLES:
                raise Skip(f"a tool turn (role {name!r})")
            if name not in ROLES:
                raise Skip(f"unknown role {name[:40]!r}")
            role = ROLES[name]
        if len(turn) > 2 and (turn.get("tool_calls") or turn.get("function_call")):
            raise Skip("a turn with tool calls")
        yield role


def text_of(content: Any) -> str:
    """Return a turn's content as text; text parts are joined with nothing between them."""
    if isinstance(content, str):
        return content
    if content is None:
        raise Skip("a turn without content (null)")
    if not isinstance(content, list):
        raise Skip(f"non-text content ({type(content).__name__})")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(text, str):
            raise Skip(f"non-text content ({_shown(kind)[:40]})")
        texts.append(text)
    return "".join(texts)


def _shown(value: Any) -> str:
    """Return a word from data for a reason; what nests is named, as it may nest too deeply."""
    return type(value).__name__ if isinstance(value, list | dict | tuple) else str(value)


def with_system(
    messages: list[Any], row: Row, columns: Columns, used: set[str]
) -> tuple[list[Any], set[str]]:
    """Put the system column's text first, unless the conversation has a system turn of its own.

    Only ShareGPT and Alpaca know a `system` column; elsewhere it may well be a model's name.
    """
    name = columns.system or ("system" if used & {"conversations", "instruction"} else None)
    text = None if name is None else row.get(name)
    if name is None or text is None or (columns.system is None and not isinstance(text, str)):
        return messages, used
    if messages[0]["role"] != "system" and text_of(text).strip():
        messages.insert(0, {"role": "system", "content": text_of(text)})
    return messages, used | {name}
