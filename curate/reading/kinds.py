"""The one type of a field over many rows, as JSON and Arrow both can keep it."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from curate.reading.layouts import Skip

_NAMES = {pa.null(): "null", pa.bool_(): "true or false", pa.string(): "text"}
_OPEN = "\0"  # a field's name that no JSON key has here: the objects' keys differ from row to row


class Mixed(Exception):  # noqa: N818 - a verdict on two types
    """Two types that no common one keeps; the message says how the second differs."""


def kind_of(value: Any) -> pa.DataType:
    """The Arrow type of a JSON value. Raises `Mixed` for a list of unlike items."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
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
    """Whether objects with differing (or no) keys are somewhere in a type."""
    if pa.types.is_list(kind):
        return has_open_objects(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == _OPEN or has_open_objects(field.type) for field in kind)
    return False


def plain(value: Any, name: str, notes: dict[str, str]) -> Any:
    """A value as JSON has it; what JSON doesn't know becomes text or null, with a note.

    Raises:
        Skip: bytes, or an integer beyond 64 bits, which no file here keeps.
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
        raise Skip(f"the column {name!r} holds bytes, which are no text")
    notes[f"plain {name}"] = f"the column {name!r} holds {type(value).__name__}: written as text"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "a list"
    if pa.types.is_struct(kind):
        return "an object"
    return _NAMES.get(kind, "a number")
