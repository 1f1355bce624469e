"""Layout detection: rows of any known layout -> chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from curate.errors import CurateError

Message = dict[str, str]
Row = dict[str, Any]
Layout = Mapping[str, str]
"""The name of the column that holds each role; the roles are those of `COLUMNS`."""

COLUMNS = ("messages", "prompt", "answer", "system", "context", "history")
"""`messages` is a whole conversation. Else `prompt` and `answer` are its last two turns; `context`
is a text that belongs to the prompt and `history` a list of earlier [question, answer] pairs."""
LAYOUTS: tuple[Layout, ...] = (
    {"messages": "messages"},
    {"messages": "conversations", "system": "system"},  # ShareGPT
    {
        "prompt": "instruction",  # Alpaca
        "context": "input",
        "answer": "output",
        "history": "history",
        "system": "system",
    },
    {"prompt": "prompt", "answer": "response"},
    {"prompt": "prompt", "answer": "completion"},
)
"""In the order in which they are looked for. Elsewhere `system` may well be a model's name."""
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
MAX_NAMES, MAX_NAMES_LENGTH = 30, 600  # of columns, in a message


class Skip(Exception):  # noqa: N818 - it is a verdict on one row, not an error
    """A row that can't be used; the message is the reason, as `skipped` shows it."""


class UnknownFormat(Skip):
    """A row whose columns belong to no known layout."""


def layouts(columns: Mapping[str, str] | None = None) -> tuple[Layout, ...]:
    """Return the layouts to look for: the known ones, with a user's columns in their places.

    Raises:
        CurateError: a role is unknown, or two of them can't be together.
    """
    named = dict(columns or {})
    if not named:
        return LAYOUTS
    for role in named:
        if role not in COLUMNS:
            raise CurateError(f"--column {role}: no such role. The roles are {', '.join(COLUMNS)}.")
    parts = [role for role in named if role not in ("messages", "system")]
    main = "messages" if "messages" in named else "prompt"
    if main == "messages" and parts:
        raise CurateError(f"--column messages is a whole conversation: leave out {parts[0]}.")
    exact: list[Layout] = []
    others: list[Layout] = []
    for layout in LAYOUTS:
        if main in layout and named.get(main, layout[main]) != layout[main]:
            answer = {role: name for role, name in layout.items() if role == "answer"}
            others.append({**answer, **named})  # what else it has belongs to its own prompt
        elif main in layout or not (parts or main in named):
            exact.append({**layout, **named})
    return (*exact, *others)


def parse(row: Row, known: Sequence[Layout] = LAYOUTS) -> tuple[list[Message], set[str]]:
    """Return the row's messages up to its last assistant turn, and the columns they came from.

    Of every turn only role and content are kept.

    Raises:
        UnknownFormat: the columns belong to no known layout.
        Skip: the row can't be used; the reason is the message.
    """
    turns, system, used = raw_turns(row, known)
    messages = _up_to_answer(turns)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages, used


def raw_turns(row: Row, known: Sequence[Layout] = LAYOUTS) -> tuple[list[Any], str, set[str]]:
    """Return the row's turns as they are, its system prompt, and the columns used.

    The system prompt is that of a column of its own, '' without one.

    Raises:
        UnknownFormat, Skip: as `parse` does.
    """
    layout = _detect(row, known)
    if "messages" in layout:
        turns = _decoded(row[layout["messages"]])
    else:
        turns = [*_history(row, layout), *_prompt(row, layout)]
        turns += _turns(row[layout["answer"]], "assistant")
    return turns, _text(row, layout, "system"), set(layout.values())


def check_answer(messages: list[Message]) -> None:
    """Raise `Skip` if the last turn is no answer that can be scored."""
    if not messages[-1]["content"].strip():
        raise Skip("empty answer")
    if len(messages) == 1:
        raise Skip("no prompt: the conversation begins with the answer")


def _needed(layout: Layout) -> list[str]:
    """The columns that a row of this layout has."""
    return [layout[role] for role in ("messages", "prompt", "answer") if role in layout]


def _detect(row: Row, known: Sequence[Layout]) -> Layout:
    """Find the first layout whose columns are there and not null."""
    for layout in known:
        if all(row.get(name) is not None for name in _needed(layout)):
            return layout
    present = [layout for layout in known if all(name in row for name in _needed(layout))]
    if not present:
        shared = set.intersection(*(set(_needed(layout)) for layout in known))
        lacking = [f"no column {name!r}" for name in sorted(shared - row.keys())]
        raise UnknownFormat(f"{(lacking or ['unknown format'])[0]}: the columns are {_names(row)}")
    pairs = [layout for layout in present if "prompt" in layout]
    if not pairs:
        raise Skip("no messages (null)")
    no_answer = all(row[layout["answer"]] is None for layout in pairs)
    raise Skip("no answer (null)" if no_answer else "no prompt (null)")


def _names(row: Row) -> str:
    """Return a row's columns for a message; broken data may have very many, or very long ones."""
    words = (" ".join(str(name).split()) or repr(name) for name in islice(row, MAX_NAMES))
    names = ", ".join(words)[:MAX_NAMES_LENGTH] or "none"
    return names + (f" and others ({len(row)} in all)" if len(row) > MAX_NAMES else "")


def _text(row: Row, layout: Layout, role: str) -> str:
    """Return the text of a column that may be missing or null, and is then ''."""
    value = row.get(layout[role]) if role in layout else None
    text = "" if value is None else text_of(value)
    return text if text.strip() else ""


def _history(row: Row, layout: Layout) -> Iterator[Message]:
    pairs = (row.get(layout["history"]) if "history" in layout else None) or []
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise Skip("the history is not a list of (question, answer)")
    for question, answer in pairs:
        yield {"role": "user", "content": text_of(question)}
        yield {"role": "assistant", "content": text_of(answer)}


def _prompt(row: Row, layout: Layout) -> list[Any]:
    """Return the prompt's turns; the context follows in the last of them."""
    turns = _turns(row[layout["prompt"]], "user")
    if turns and (context := _text(row, layout, "context")):
        turns[-1] = {"role": role_of(turns[-1]), "content": f"{_content(turns[-1])}\n{context}"}
    return turns


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


def role_of(turn: Any) -> str:
    """Return a turn's role by its usual name, an unknown one in lower case; '' without one."""
    name = turn.get("role") or turn.get("from") or ""
    name = _shown(name).lower()
    return ROLES.get(name, name)


def _up_to_answer(turns: list[Any]) -> list[Message]:
    """Check the turns and return them as messages, the last assistant turn last."""
    roles = [_role(turn) for turn in turns]
    while roles and roles[-1] != "assistant":
        roles.pop()
    if not roles:
        raise Skip("no assistant turn")
    answer = turns[len(roles) - 1]
    if answer.get("content", answer.get("value")) is None:
        raise Skip("no answer (null)")
    return [
        {"role": role, "content": _content(turn)} for role, turn in zip(roles, turns, strict=False)
    ]


def _role(turn: Any) -> str:
    """Return a turn's role; refuse tools, and what is no turn."""
    if not isinstance(turn, dict):
        raise Skip("a turn is not an object with role and content")
    role = role_of(turn)
    if role in TOOL_ROLES:
        raise Skip(f"a tool turn (role {role!r})")
    if role not in ("system", "user", "assistant"):
        raise Skip(f"unknown role {role[:40]!r}" if role else "a turn without a role")
    if len(turn) > 2 and (turn.get("tool_calls") or turn.get("function_call")):
        raise Skip("a turn with tool calls")
    return role


def _content(turn: Row) -> str:
    return text_of(turn.get("content", turn.get("value")))


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
