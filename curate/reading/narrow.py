"""The narrow dataset: rows of any input format, with every field kept.

A row that can't be kept completely stops the export with its file and line. Values that have to be
converted are named in a note.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pyarrow as pa

from curate.errors import CurateError
from curate.reading.examples import example_id
from curate.reading.known import Known, known_layouts, still_lacking
from curate.reading.layouts import check_role, conversation, last_answer, message_of
from curate.reading.sources import resolve, rows
from curate.reading.turns import Skip, is_blank, text_of

CALLS = ("tool_calls", "function_call")
"""Keys of a turn that may replace its content."""
_PARTS = "contents given as lists of text parts are written as plain text"


@dataclass(frozen=True, slots=True)
class Row:
    """One narrow row: its place, its turns, and the columns besides the conversation.

    A turn has role, content (text, or None with tool calls) and its other keys. `alpaca` holds the
    separate instruction and input of a row in that format.
    """

    place: str
    messages: list[dict[str, Any]]
    others: dict[str, Any]
    alpaca: tuple[str, str] | None = None


@dataclass(frozen=True)
class Narrow:
    """A narrow dataset: its rows in order, and the type of every other field.

    `columns` are those besides the conversation, and `keys` those of turns besides role and
    content, both in order of appearance. `sha256` is that of the rows, not of the files; `commit`
    is that of a Hub dataset.
    """

    rows: list[Row]
    columns: dict[str, pa.DataType] = field(default_factory=dict)
    keys: dict[str, pa.DataType] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sha256: str = ""
    commit: str | None = None


def read(path: str, columns: Mapping[str, str] | None = None, layouts: str | None = None) -> Narrow:
    """Read a narrow dataset (a file, folder, glob or Hub dataset), including duplicates.

    `columns` and `layouts` are those of `curate.reading.examples.read`.

    Raises:
        CurateError: a row can't be used, or a field has two types (`path:line: ...`); there is
            no row; or no row has a column that is named.
    """
    known = known_layouts(columns, layouts)
    found: list[Row] = []
    beside: dict[str, pa.DataType] = {}
    keys: dict[str, pa.DataType] = {}
    notes: dict[str, str] = {}
    digest = hashlib.sha256()
    missing = set(known.extra)
    sources = resolve([path])
    places = ((f"{at}:{number}", raw) for at in sources for number, raw in rows(at))
    for place, raw in places:
        row = _row(place, raw, known, notes)
        if isinstance(raw, dict):
            missing = still_lacking(missing, raw)
        digest.update(orjson.dumps([row.messages, row.others, row.alpaca]) + b"\n")
        _learn(beside, row.others, place, "column")
        for message in row.messages:
            others = {k: v for k, v in message.items() if k not in ("role", "content")}
            _learn(keys, others, place, "turn's key")
        found.append(row)
    if not found:
        raise CurateError(f"{path}: the narrow dataset is empty.")
    if missing:
        raise CurateError(f"{path}: no row has a column {min(missing)!r}.")
    noted, sha256 = list(notes.values()), digest.hexdigest()
    return Narrow(found, beside, keys, noted, sha256, sources[0].commit)


def answers(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The indexes of the assistant turns with text."""
    return [
        at for at, turn in enumerate(messages) if turn["role"] == "assistant" and turn["content"]
    ]


def _row(place: str, raw: dict[str, Any] | str, known: Known, notes: dict[str, str]) -> Row:
    try:
        if isinstance(raw, str):
            raise Skip(raw)
        raw = {name: plain(value, name, notes) for name, value in raw.items()}
        parts = conversation(raw, known)
        messages = [_turn(turn, known, notes) for turn in parts.turns]
        if not messages:
            raise Skip("no messages")
        _check(messages)
    except Skip as skip:
        raise CurateError(f"{place}: {skip}") from None
    alpaca = None
    prompt = raw.get(parts.columns.get("prompt", ""))
    if isinstance(prompt, str) and "context" in parts.columns:
        extra = raw[parts.columns["context"]]
        if not isinstance(extra, str):
            notes["parts"] = _PARTS
        alpaca = (prompt, text_of(extra))
    others = {name: value for name, value in raw.items() if name not in parts.used}
    return Row(place, messages, others, alpaca)


def _turn(turn: dict[str, Any], known: Known, notes: dict[str, str]) -> dict[str, Any]:
    check_role(turn, known, tools=True)
    content = turn["content"]
    if not isinstance(content, str) and not (content is None and _calls(turn)):
        notes["parts"] = _PARTS
        content = text_of(content)
    null = {key: None for key in CALLS if isinstance(turn.get(key), dict) and is_blank(turn[key])}
    return turn | {"content": content} | null


def _calls(turn: Mapping[str, Any]) -> bool:
    return any(not is_blank(turn.get(key)) for key in CALLS)


def _check(messages: list[dict[str, Any]]) -> None:
    last = last_answer(messages)
    if last is None:
        raise Skip("no assistant turn")
    answer = messages[last]
    if not (answer["content"] or "").strip() and not _calls(answer):
        raise Skip("empty answer")
    if last == 0:
        raise Skip("no prompt: the conversation begins with the answer")


def _learn(kinds: dict[str, pa.DataType], values: dict[str, Any], place: str, what: str) -> None:
    """Widen the fields' types to fit one row's values."""
    for name, value in values.items():
        try:
            kinds[name] = unify(kinds.get(name, pa.null()), kind_of(value))
        except Mixed as mixed:
            raise CurateError(
                f"{place}: the {what} {name!r} is {mixed} than in earlier rows. A mix has one "
                "schema, so give it one type."
            ) from None


def for_one_schema(narrow: Narrow) -> Narrow:
    """The dataset with columns of objects whose keys differ from row to row as JSON text.

    Raises:
        CurateError: a turn key holds such objects.
    """
    what = "holds objects whose keys differ from row to row"
    if refused := [name for name, kind in narrow.keys.items() if has_open_objects(kind)]:
        raise CurateError(
            f"{narrow.rows[0].place.rpartition(':')[0]}: the turns' key {refused[0]!r} {what}, "
            "which Parquet and trainers can't keep. Write a .jsonl file without --trainer, or give "
            "them as JSON text, like the arguments of tool calls."
        )
    opened = [name for name, kind in narrow.columns.items() if has_open_objects(kind)]
    rows = []
    for row in narrow.rows:
        found = {name: row.others[name] for name in opened if row.others.get(name) is not None}
        texts = {name: orjson.dumps(value).decode() for name, value in found.items()}
        rows.append(replace(row, others=row.others | texts))
    notes = [f"the column {name!r} {what}: written as JSON text" for name in opened]
    columns = narrow.columns | dict.fromkeys(opened, pa.string())
    return replace(narrow, rows=rows, columns=columns, notes=[*narrow.notes, *notes])


def ids_of(narrow: Narrow) -> set[str]:
    """The example ids of the narrow rows, one for each answer."""
    found = set()
    for row in narrow.rows:
        for at in answers(row.messages):
            turns = row.messages[: at + 1]
            if all(isinstance(turn["content"], str) for turn in turns):
                with suppress(Skip):  # a text that no example can have
                    found.add(example_id([message_of(turn) for turn in turns]))
    return found


_NAMES = {pa.null(): "null", pa.bool_(): "true or false", pa.string(): "text"}
_SCALARS: dict[type, pa.DataType] = {
    type(None): pa.null(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}
_OPEN = "\0"  # a field's name that no JSON key has here: the objects' keys differ from row to row


class Mixed(Exception):  # noqa: N818 - a verdict on two types
    """Two types without a common one; the message says how the second differs."""


def kind_of(value: Any) -> pa.DataType:
    """The Arrow type of a JSON value. Raises `Mixed` for a list of unlike items."""
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, list):
        item = pa.null()
        for each in value:
            item = unify(item, kind_of(each))
        return pa.list_(item)
    fields = [(key, kind_of(each)) for key, each in value.items()]
    return pa.struct(fields or [(_OPEN, pa.null())])


def unify(one: pa.DataType, two: pa.DataType) -> pa.DataType:
    """The type that keeps values of both; nulls fit every type.

    Raises:
        Mixed: there is none.
    """
    if one == two or two == pa.null():
        return one
    if one == pa.null():
        return two
    if {one, two} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(two):
        return pa.list_(unify(one.value_type, two.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(two):
        if {f.name for f in one} != {f.name for f in two}:
            return pa.struct([(_OPEN, pa.null())])
        return pa.struct([(f.name, unify(f.type, two.field(f.name).type)) for f in one])
    raise Mixed(f"of another type ({_name(two)}, not {_name(one)})")


def has_open_objects(kind: pa.DataType) -> bool:
    """Whether a type contains objects with differing keys or none."""
    if pa.types.is_list(kind):
        return has_open_objects(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == _OPEN or has_open_objects(field.type) for field in kind)
    return False


def plain(value: Any, name: str, notes: dict[str, str]) -> Any:
    """A value as JSON; what JSON can't represent becomes text or null, with a note.

    Raises:
        Skip: bytes, or an integer beyond 64 bits, which no output format can keep.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, dict):
        return {str(key): plain(each, name, notes) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, name, notes) for each in value]
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return value
        raise Skip(f"the column {name!r} holds an integer beyond 64 bits")
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        notes[f"nan {name}"] = f"the column {name!r} holds NaN or infinity: written as null"
        return None
    if isinstance(value, bytes):
        raise Skip(f"the column {name!r} holds bytes, not text")
    notes[f"plain {name}"] = f"the column {name!r} holds {type(value).__name__}: written as text"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "a list"
    if pa.types.is_struct(kind):
        return "an object"
    return _NAMES.get(kind, "a number")
