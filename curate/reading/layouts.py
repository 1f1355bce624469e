"""Layout detection: a row of any known layout -> chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from curate.reading.known import Known, Layout, known_layouts, still_lacking
from curate.reading.turns import Skip, Turn, is_blank, is_transcript, text_of, turns_in, turns_of
from curate.storage.schema import REASONING

Message = dict[str, Any]
"""`role` and `content`, both text; optionally an answer's `reasoning_content`, and a key that says
that an answer is not trained on."""
Row = dict[str, Any]

DEFAULT = known_layouts()
_OPEN = ("messages", "transcript", "prompt")
_NEEDED = (*_OPEN, "answer")
MAX_NAMES, MAX_NAMES_LENGTH = 30, 600  # of columns, in a message


class UnknownFormat(Skip):
    """A row whose columns belong to no known layout."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row's unchecked turns, its columns by role, and all columns of the conversation."""

    turns: list[Turn]
    columns: Mapping[str, str]
    used: set[str]


def conversation(row: Row, known: Known) -> Conversation:
    """Return the row's turns, with the text of other columns added.

    Raises:
        UnknownFormat: the columns belong to no known layout.
        Skip: the row can't be used; the reason is the message.
    """
    columns, empty = _detect(row, known)
    if "prompt" in columns:
        turns = _prompt_and_answer(row, columns, known)
    else:
        turns = turns_of(row[columns.get("messages") or columns["transcript"]], known)
    if "history" in columns:
        try:
            turns = [*turns_of(row[columns["history"]], known), *turns]
        except Skip:
            raise Skip("the history is not a list of (question, answer)") from None
    if known.prompts:
        turns = _with_answer(turns)
    if "context" in columns:
        separator = known.separators.get(columns["context"].casefold(), "\n")
        _add_context(turns, separator + text_of(row[columns["context"]]))
    if "reasoning" in columns and (at := last_answer(turns)) is not None:
        turns[at] = turns[at] | {REASONING: text_of(row[columns["reasoning"]])}
    used = {*columns.values(), *empty}
    if "system" in columns and turns:
        system = {"role": "system", "content": text_of(row[columns["system"]])}
        if turns[0]["role"] != "system":
            turns.insert(0, system)
        elif turns[0]["content"] != system["content"]:
            used.discard(columns["system"])  # the conversation has one of its own
    return Conversation(turns, columns, used)


def messages_of(turns: list[Turn], known: Known) -> list[Message]:
    """Check turns and return them as messages, the last assistant turn last.

    Raises:
        Skip: one of them can't be used.
    """
    for turn in turns:
        check_role(turn, known)
        if len(turn) > 2 and not all(is_blank(turn.get(key)) for key in known.keys["calls"]):
            raise Skip("a turn with tool calls")
    last = last_answer(turns)
    if last is None:
        raise Skip("no assistant turn")
    if turns[last]["content"] is None:
        raise Skip("no answer (null)")
    return [message_of(turn, known) for turn in turns[: last + 1]]


def check_role(turn: Turn, known: Known, *, tools: bool = False) -> None:
    """Raise `Skip` for an unknown role and, without `tools`, for those of tools."""
    role = turn["role"]
    if role in known.tools and not tools:
        raise Skip(f"a tool turn (role {role!r})")
    if role not in ("system", "user", "assistant", *known.tools):
        raise Skip(f"unknown role {role[:40]!r}" if role else "a turn without a role")


def message_of(turn: Turn, known: Known = DEFAULT) -> Message:
    """Return a turn with its text, and the relevant other keys of an answer.

    Raises:
        Skip: its content isn't text.
    """
    message = {"role": turn["role"], "content": text_of(turn["content"])}
    if len(turn) > 2 and turn["role"] == "assistant":
        for key in known.keys["reasoning"]:
            if isinstance(turn.get(key), str) and turn[key].strip():
                message.setdefault(REASONING, turn[key])
        message |= {key: turn[key] for key in known.keys["trained"] if turn.get(key) in (0, False)}
    return message


def check_answer(messages: list[Message], known: Known = DEFAULT) -> None:
    """Raise `Skip` if the last turn isn't an answer that can be scored, or replaced."""
    answer = messages[-1]
    if not (known.prompts or answer["content"].strip()):
        raise Skip("empty answer")
    if len(messages) == 1:
        raise Skip("no prompt: the conversation begins with the answer")
    if known.prompts:
        if not messages[-2]["content"].strip():
            raise Skip("empty prompt")
        return
    for key in answer.keys() - {"role", "content", REASONING}:
        raise Skip(f"the answer has {key} {answer[key]}: it is marked as not trained on")


def _detect(row: Row, known: Known) -> tuple[dict[str, str], set[str]]:
    """Return the row's columns by role, from the first layout that fits, and the empty ones."""
    folded = {str(name).casefold(): name for name in row} | {name: name for name in row}
    for needed in (_NEEDED, _OPEN) if known.prompts else (_NEEDED,):
        for layout in known.layouts:
            columns, empty = _columns(row, folded, layout)
            if any(role in layout and role not in columns for role in needed):
                continue
            if "transcript" not in columns or is_transcript(row[columns["transcript"]], known):
                return columns, empty
    raise _none(row, folded, known)


def _columns(
    row: Row, folded: Mapping[str, str], layout: Layout
) -> tuple[dict[str, str], set[str]]:
    """The row's columns that a layout names, by role, and those of them that are empty."""
    columns: dict[str, str] = {}
    empty = set()
    for role, names in layout.items():
        for name in (folded[name] for name in names if name in folded):
            if row[name] is None or (role not in _NEEDED and is_blank(row[name])):
                empty.add(name)
            else:
                columns.setdefault(role, name)
        if role in _OPEN and role not in columns:
            break
    return columns, empty


def _none(row: Row, folded: Mapping[str, str], known: Known) -> Skip:
    """Why no layout fits: columns that are null or missing."""

    def has(layout: Layout, role: str) -> bool:
        return role not in layout or any(name in folded for name in layout[role])

    needed = _OPEN if known.prompts else _NEEDED
    present = [each for each in known.layouts if all(has(each, role) for role in needed)]
    present = [layout for layout in present if "transcript" not in layout]
    if not (present or known.named) and _is_message(row, folded, known):
        return Skip(
            "one message, not a conversation: join the rows of each into a column `messages`, a "
            "list of role and content (OpenAssistant's by parent_id)"
        )
    if not present:
        named = known.named.items()
        wanted = still_lacking({name for role, name in named if role in needed}, row)
        what = f"no column {min(wanted)!r}" if wanted else "unknown format"
        return UnknownFormat(f"{what}: the columns are {_names(row)}")
    pairs = [layout for layout in present if "prompt" in layout]
    if not pairs:
        return Skip("no messages (null)")
    answers = {folded[name] for each in pairs for name in each["answer"] if name in folded}
    no_answer = not known.prompts and all(row[name] is None for name in answers)
    return Skip("no answer (null)" if no_answer else "no prompt (null)")


def _is_message(row: Row, folded: Mapping[str, str], known: Known) -> bool:
    """Whether a row is one turn, its role in one column and its content in another."""
    roles = [row[folded[name]] for name in known.keys["role"] if name in folded]
    return any(name in folded for name in known.keys["content"]) and any(
        str(role).casefold() in known.roles for role in roles
    )


def _names(row: Row) -> str:
    """Return a row's column names for a message, shortened: there may be many or long ones."""
    words = (" ".join(str(name).split()) or repr(name) for name in islice(row, MAX_NAMES))
    names = ", ".join(words)[:MAX_NAMES_LENGTH] or "none"
    return names + (f" and others ({len(row)} in all)" if len(row) > MAX_NAMES else "")


def _prompt_and_answer(row: Row, columns: Mapping[str, str], known: Known) -> list[Turn]:
    """A prompt's turns and an answer's; preference data repeats the prompt in the answer."""
    prompt = turns_in(row[columns["prompt"]], "user", known)
    if "answer" not in columns:
        return prompt
    answer = turns_in(row[columns["answer"]], "assistant", known)
    if all(turn["role"] == "assistant" for turn in answer[:1]):
        return [*prompt, *answer]
    if not all(any(_same(turn, other) for other in answer) for turn in prompt):
        raise Skip("the answer is a whole conversation, but not that of the prompt")
    return answer


def _same(one: Turn, other: Turn) -> bool:
    return one["role"] == other["role"] and (
        text_of(one["content"]).strip() == text_of(other["content"]).strip()
    )


def _with_answer(turns: list[Turn]) -> list[Turn]:
    """The turns with an empty answer at the end if they lack one there."""
    last = turns[-1] if turns else {}
    if last.get("role") == "user":
        return [*turns, {"role": "assistant", "content": ""}]
    if last.get("role") == "assistant" and last["content"] is None:
        return [*turns[:-1], last | {"content": ""}]
    return turns


def last_answer(turns: list[Turn]) -> int | None:
    """The index of the last assistant turn."""
    places = [at for at, turn in enumerate(turns) if turn["role"] == "assistant"]
    return places[-1] if places else None


def _add_context(turns: list[Turn], context: str) -> None:
    for at in reversed(range(last_answer(turns) or 0)):
        if turns[at]["role"] == "user":
            turns[at] = turns[at] | {"content": text_of(turns[at]["content"]) + context}
            return
    raise Skip("a context, but no user turn to append it to")
