"""The known layouts of conversations: a user's own, then those of `data/layouts.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Len
from pydantic import BaseModel, ValidationError, model_validator

from curate.errors import CurateError
from curate.storage.documents import first_fault

Role = Literal["messages", "prompt", "answer", "system", "context", "history", "reasoning"]
COLUMNS: tuple[Role, ...] = get_args(Role)
"""`messages` is a whole conversation. Otherwise, `prompt` and `answer` are its last two turns.
`context` is a text that belongs to the prompt, `history` a list of earlier [question, answer]
pairs, and `reasoning` what the model thinks before the answer."""

Layout = Mapping[str, tuple[str, ...]]
"""The columns of each role; the first that isn't null is used."""


@dataclass(frozen=True)
class Transcript:
    """A conversation as one text: its beginning, the marks before turns, and the ends of turns."""

    begins: tuple[str, ...]
    marks: re.Pattern[str]
    roles: Mapping[str, str]
    end: str


@dataclass(frozen=True)
class Known:
    """The layouts in use; see the comments in `data/layouts.toml` for the meaning of each part.

    `keys` holds the turns' keys by meaning, `named` the user's columns by role. With `prompts`, a
    prompt is enough: rows without an answer get an empty one. `usual` are the layouts without
    `named`.
    """

    layouts: tuple[Layout, ...]
    separators: Mapping[str, str]
    keys: Mapping[str, tuple[str, ...]]
    pairs: tuple[tuple[str, str], ...]
    roles: Mapping[str, str]
    tools: frozenset[str]
    transcripts: tuple[Transcript, ...]
    hints: Mapping[str, str]
    named: Mapping[str, str] = field(default_factory=dict)
    prompts: bool = False
    usual: tuple[Layout, ...] = ()

    @property
    def extra(self) -> frozenset[str]:
        """The named columns that some, but not all, rows may lack."""
        beside = ("system", "context", "history", "reasoning")
        return frozenset(name for role, name in self.named.items() if role in beside)


def known_layouts(columns: Mapping[str, str] | None = None, file: str | None = None) -> Known:
    """Return the layouts to look for: those of a file before the built-in ones.

    `columns` maps roles to column names, like `--column ROLE=NAME`; `file` is a TOML file like
    `data/layouts.toml`.

    Raises:
        CurateError: a role is unknown, two roles exclude each other, or the file is invalid.
    """
    known, named = _load(file), dict(columns or {})
    for role in named:
        if role not in COLUMNS:
            raise CurateError(f"--column {role}: unknown role. The roles are {', '.join(COLUMNS)}.")
    parts = [role for role in named if role in ("prompt", "answer", "history")]
    if "messages" in named and parts:
        raise CurateError(f"--column messages is a whole conversation. Remove --column {parts[0]}.")
    if not named:
        return known
    layouts = tuple(_named(known, named))
    return replace(known, layouts=layouts, named=named, usual=known.layouts)


def still_lacking(names: set[str], row: Mapping[str, Any]) -> set[str]:
    """Those of `names` that this row lacks as well, ignoring case."""
    if not names:
        return names
    there = {str(name).casefold() for name in row}
    return {name for name in names if name.casefold() not in there}


def _named(known: Known, named: Mapping[str, str]) -> Iterator[Layout]:
    """The layouts with a user's columns in place; a layout of the user's own prompt is last."""
    given = {role: (name, name.casefold()) for role, name in named.items()}
    main = "messages" if "messages" in named else "prompt"
    any_layout = not named.keys() - {"system", "context", "reasoning"}
    others: list[Layout] = []
    for layout in known.layouts:
        if main in layout and named.get(main, layout[main][0]).casefold() not in layout[main]:
            kept = {"answer", "system"}  # what else it has belongs to its own prompt
            others.append({r: names for r, names in layout.items() if r in kept} | given)
        elif main in layout or any_layout:
            yield {**layout, **given}
    yield from others


_Names = list[str]


class _Form(BaseModel, extra="forbid", strict=True):
    pass


class _Layout(_Form):
    messages: _Names = []
    transcript: _Names = []
    prompt: _Names = []
    answer: _Names = []
    context: _Names = []
    history: _Names = []

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not (self.messages or self.transcript or (self.prompt and self.answer)):
            raise ValueError("a layout needs messages, a transcript, or prompt and answer")
        return self


class _Transcript(_Form):
    system: str = ""
    user: str
    assistant: str
    end: str = ""


class _Turns(_Form):
    role: _Names = []
    content: _Names = []
    reasoning: _Names = []
    calls: _Names = []
    trained: _Names = []
    pairs: list[Annotated[list[str], Len(2, 2)]] = []


class _Table(_Form):
    layouts: list[_Layout] = []
    beside: dict[Literal["system"], _Names] = {}
    separators: dict[str, str] = {}
    turns: _Turns = _Turns()
    roles: dict[Literal["system", "user", "assistant", "tool"], _Names] = {}
    transcripts: list[_Transcript] = []
    hints: dict[Role | Literal["none"], _Names] = {}


@cache
def _load(file: str | None) -> Known:
    """Read the built-in layouts, and a user's file before them."""
    shipped = (resources.files("curate.data") / "layouts.toml").read_text("utf-8")
    tables = [_Table.model_validate(tomllib.loads(shipped))]
    try:
        if file is not None:
            tables.insert(0, _Table.model_validate(tomllib.loads(Path(file).read_text("utf-8"))))
    except OSError as error:
        raise CurateError(f"--layouts {file}: can't be read ({error.strerror})") from None
    except ValueError as error:
        why = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise CurateError(
            f"--layouts {file}: not a valid table of layouts ({' '.join(why.split())}). "
            "See docs/input-formats.md."
        ) from None
    return _joined(tables)


def _joined(tables: Sequence[_Table]) -> Known:
    """The tables as one, the first before the others."""
    beside = _by_role(table.beside for table in tables)
    roles = _by_name(table.roles for table in tables)
    layouts = [layout.model_dump(exclude_defaults=True) for t in tables for layout in t.layouts]
    return Known(
        layouts=tuple({r: tuple(n) for r, n in layout.items()} | beside for layout in layouts),
        separators={name: text for t in reversed(tables) for name, text in t.separators.items()},
        keys=_by_role(table.turns.model_dump(exclude={"pairs"}) for table in tables),
        pairs=tuple((user, assistant) for table in tables for user, assistant in table.turns.pairs),
        roles={name: role for name, role in roles.items() if role != "tool"},
        tools=frozenset(name for name, role in roles.items() if role == "tool"),
        transcripts=tuple(_marks(each) for table in tables for each in table.transcripts),
        hints=_by_name(table.hints for table in tables),
    )


def _by_role(tables: Iterable[Mapping[Any, Sequence[str]]]) -> dict[str, tuple[str, ...]]:
    joined: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for role, names in table.items():
            joined[role] = (*joined.get(role, ()), *names)
    return joined


def _by_name(tables: Iterable[Mapping[Any, Sequence[str]]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for table in tables:
        for role, names in table.items():
            for name in names:
                joined.setdefault(name.casefold(), role)
    return joined


def _marks(form: _Transcript) -> Transcript:
    roles = {form.user: "user", form.assistant: "assistant"}
    if form.system:
        roles[form.system] = "system"
    pattern = "|".join(map(re.escape, sorted(roles, key=len, reverse=True)))
    begins = tuple(mark.lstrip() for mark, role in roles.items() if role != "assistant")
    return Transcript(begins, re.compile(f"({pattern})"), roles, form.end)
