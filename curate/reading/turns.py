"""A conversation in any known shape -> its turns: a role, a content, and other keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from curate.reading.known import Known

Turn = dict[str, Any]
"""`role` (by its usual name), `content` (as it came), and the turn's other keys."""

_JSON_OBJECT = re.compile(r"""\s*\[?\s*\{\s*(["'])\w+\1\s*:""")
_TEXT = r"""(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")"""
_LISTED = re.compile(rf"\s*\[\s*{_TEXT}(?:[\s,]*{_TEXT})*[\s,]*\]\s*", re.DOTALL)
LISTED = "a list of texts printed as one: give a text, or the whole row as messages"
PRINTED = "turns printed as Python, as Dataset.to_csv does: write JSON Lines or Parquet instead"
NESTED = 4  # how deep an empty value may be nested


class Skip(Exception):  # noqa: N818 - it is a verdict on one row, not an error
    """A row that can't be used; the message is the reason, as `skipped` shows it."""


def turns_of(value: Any, known: Known) -> list[Turn]:
    """Return the turns of a whole conversation.

    It may be a list of turns, of objects or lists with a question and its answer, or of alternating
    texts; an object of lists; JSON text of any of these; or one text with role marks.

    Raises:
        Skip: it is none of these.
    """
    if isinstance(value, str):
        value = _from_text(value, known)
    if isinstance(value, dict):
        value = _rows_of(value, known)
    if not isinstance(value, list):
        raise Skip("the messages are not a list")
    value = _texts_decoded(value, known)
    if value and all(isinstance(each, str) for each in value):
        roles = ("user", "assistant")
        return [{"role": roles[at % 2], "content": text} for at, text in enumerate(value)]
    if value and all(isinstance(each, list) and len(each) == 2 for each in value):
        return list(_from_lists(value, known))
    return [turn for each in value for turn in _from_object(each, known)]


def turns_in(value: Any, role: str, known: Known) -> list[Turn]:
    """Return the turns in a column of one role: one for text, possibly more for other values.

    Raises:
        Skip: the text is turns printed as Python, or an answer is a list of texts.
    """
    if isinstance(value, str):
        decoded = _decoded(value, known)
        if decoded is value:
            if role == "assistant" and _LISTED.fullmatch(value):
                raise Skip(LISTED)
            return _transcript_part(value, role, known) or [{"role": role, "content": value}]
        value = decoded
    each = _texts_decoded(value, known) if isinstance(value, list) else [value]
    if all(isinstance(turn, dict) and _key(turn, "role", known) for turn in each):
        return turns_of(value, known)
    return [{"role": role, "content": value}]


def text_of(content: Any) -> str:
    """Return a turn's content as text; text parts are joined without a separator.

    Raises:
        Skip: it isn't text, or it is several texts.
    """
    if isinstance(content, str):
        return content
    if content is None:
        raise Skip("a turn without content (null)")
    if not isinstance(content, list):
        raise Skip(f"non-text content ({type(content).__name__})")
    if len(content) > 1 and all(isinstance(part, str) for part in content):
        raise Skip(f"a list of {len(content)} texts: it is unclear which one is meant")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(text, str):
            raise Skip(f"non-text content ({_shown(kind)[:40]})")
        texts.append(text)
    return "".join(texts)


def is_blank(value: Any, depth: int = NESTED) -> bool:
    """Whether a value is empty: null, blank text, or a list or object of such values."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | dict) and depth:
        values = value.values() if isinstance(value, dict) else value
        return all(is_blank(each, depth - 1) for each in values)
    return value is None


def is_transcript(value: Any, known: Known) -> bool:
    """Whether a value is one text with role marks."""
    return isinstance(value, str) and _transcript(value, known) is not None


def _key(turn: Mapping[str, Any], meaning: str, known: Known) -> str | None:
    """The turn's key of this meaning: the first that isn't null."""
    for key in known.keys[meaning]:
        if turn.get(key) is not None:
            return key
    return None


def _from_object(turn: Any, known: Known) -> Iterable[Turn]:
    """One turn, or the two of a pair."""
    if not isinstance(turn, dict):
        raise Skip("a turn is not an object with role and content")
    role, content = _key(turn, "role", known), _key(turn, "content", known)
    if role is None:
        for question, answer in known.pairs:
            if question in turn and answer in turn:
                others = {k: v for k, v in turn.items() if k not in (question, answer)}
                yield {"role": "user", "content": turn[question]}
                yield others | {"role": "assistant", "content": turn[answer]}
                return
    found = {
        "role": _role(turn[role], known) if role else "",
        "content": turn[content] if content else None,
    }
    if len(turn) > 2:
        for key, value in turn.items():
            vocabulary = key in known.keys["role"] or key in known.keys["content"]
            if key not in (role, content, "role", "content") and not (vocabulary and value is None):
                found[key] = value
    yield found


def _from_lists(pairs: list[list[Any]], known: Known) -> Iterable[Turn]:
    """Pairs of a role and a text, or of a question and its answer."""
    if all(isinstance(name, str) and name.casefold() in known.roles for name, _ in pairs):
        yield from ({"role": _role(name, known), "content": text} for name, text in pairs)
        return
    for question, answer in pairs:
        yield {"role": "user", "content": question}
        yield {"role": "assistant", "content": answer}


def _rows_of(value: dict[str, Any], known: Known) -> list[Any]:
    """An object of lists as a list of objects; an object that is one turn as a list of it."""
    lists = {key: each for key, each in value.items() if isinstance(each, list)}
    role = _key(value, "role", known)
    if role not in lists:
        if role is None:
            raise Skip("the messages are not a list")
        return [value]
    length = len(lists[role])
    if any(len(each) != length for each in lists.values()):
        raise Skip("the messages' lists differ in length")
    return [{key: each[at] for key, each in lists.items()} for at in range(length)]


def _role(name: Any, known: Known) -> str:
    """A role by its usual name, an unknown one in lower case."""
    name = name if isinstance(name, str) else _shown(name)
    if name in known.roles:
        return known.roles[name]
    name = name.strip().casefold()
    return known.roles.get(name, name)


def _decoded(text: str, known: Known) -> Any:
    """The value of JSON text of turns; other text unchanged."""
    begin = _JSON_OBJECT.match(text)
    if begin is None or not all(
        any(f"{begin[1]}{name}{begin[1]}:" in text for name in known.keys[key])
        for key in ("role", "content")
    ):
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        if begin[1] == "'":
            raise Skip(PRINTED) from None
        return text
    turns = value if isinstance(value, list) else [value]
    both = all(
        isinstance(turn, dict) and _key(turn, "role", known) and _key(turn, "content", known)
        for turn in turns
    )
    return value if both else text


def _texts_decoded(turns: list[Any], known: Known) -> list[Any]:
    return [_decoded(turn, known) if isinstance(turn, str) else turn for turn in turns]


def _from_text(text: str, known: Known) -> Any:
    """A conversation from JSON (CSV cells), or from a transcript."""
    if (turns := _transcript(text, known)) is not None:
        return turns
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        _decoded(text, known)
        raise Skip("the messages are text that is not JSON") from None


def _transcript(text: str, known: Known) -> list[Turn] | None:
    """The turns of a text that starts with the mark of a prompt, else None."""
    begin = text.lstrip()
    for form in known.transcripts:
        if begin.startswith(form.begins):
            _, *pieces = form.marks.split(f"\n\n{begin}")
            return [
                {"role": form.roles[mark], "content": body.strip().removesuffix(form.end).strip()}
                for mark, body in zip(pieces[::2], pieces[1::2], strict=True)
            ]
    return None


def _transcript_part(text: str, role: str, known: Known) -> list[Turn]:
    """A prompt that ends with the answer's mark, or an answer that repeats its prompt; else []."""
    turns = _transcript(text, known) or []
    if role == "assistant":
        return turns if len(turns) > 1 else []
    if len(turns) > 1 and turns[-1] == {"role": "assistant", "content": ""}:
        return turns[:-1]
    return []


def _shown(value: Any) -> str:
    """Return a value from data for a message; a list or object only by its type."""
    return type(value).__name__ if isinstance(value, list | dict | tuple) else str(value)
