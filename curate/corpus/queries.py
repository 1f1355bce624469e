"""The named queries of `sql/` and of a user's own folder, with their parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.system.sql import literal

Value = int | float | bool | str

RANKING: dict[str, Value] = {"epsilon": 1.0, "hold_out": "", "metric": "relative"}
"""Parameters of every query that reads the views `ranks` or `model_ranks`, with their defaults."""
_RANKS = re.compile(r"\b(?:from|join)\s+(?:model_)?ranks\b(?!\s*\()", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """A file of `sql/`: what it answers, its text, and its parameters with their defaults."""

    name: str
    about: str
    text: str
    defaults: dict[str, Value]


def named(folder: Path | None = None) -> dict[str, Query]:
    """All named queries, by name: those of `sql/` and a user's own, which take precedence.

    Raises:
        CurateError: the folder, or a file of it, can't be read.
    """
    found = _read(resources.files("curate.sql").iterdir())
    if folder is not None:
        try:
            found |= _read(folder.iterdir())
        except (OSError, UnicodeDecodeError) as error:
            raise CurateError(f"--queries {folder}: can't be read ({error})") from None
    return dict(sorted(found.items()))


def find(name: str, folder: Path | None = None) -> Query:
    """The query of this name.

    Raises:
        CurateError: there is none; the message suggests the closest name.
    """
    known = named(folder)
    if name in known:
        return known[name]
    from curate.corpus.views import described  # with DuckDB and Arrow: too heavy for completion

    if name in described():
        raise CurateError(f'{name} is a view, not a query. Try: curate sql "from {name} limit 20"')
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? All: " if near else "see "
    raise CurateError(f"no query is called {name}; {hint}`curate sql --list`")


def depth(ranked: int, share: float = 0.1) -> int:
    """The length of a top that is given as a share of the ranked examples (default: a tenth)."""
    return max(1, int(share * ranked))


def read_question(
    question: str, given: list[str], folder: Path | None = None
) -> tuple[Query, dict[str, Any]]:
    """SQL, or the named query `question`, and its `key=value` parameters.

    Raises:
        CurateError: no such query, or an item of another form.
    """
    is_name = re.fullmatch(r"[\w-]+", question)
    query = find(question, folder) if is_name else _parse("of your own", question)
    if given and not query.defaults:
        raise CurateError("-p works only with named queries. Write the value into your SELECT.")
    values = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            raise CurateError(f"-p {item}: give a parameter as key=value")
        values[key] = text if isinstance(query.defaults.get(key), str) else _value(text)
    return query, values


def ranking_views(values: Mapping[str, Any]) -> str:
    """SQL for the views `ranks` and `model_ranks` that these values ask for; empty by default."""
    if all(values.get(name, default) == default for name, default in RANKING.items()):
        return ""
    held_out = ", ".join(literal(name) for name in str(values["hold_out"]).split(",") if name)
    epsilon, metric = (literal(str(values[name])) for name in ("epsilon", "metric"))
    arguments = (
        f"epsilon := {epsilon}::double, hold_out := [{held_out}]::varchar[], metric := {metric}"
    )
    return "".join(
        f"create temp view {view} as from main.{view}({arguments}); "
        for view in ("ranks", "model_ranks")
    )


def bound(query: Query, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a query refers to; DuckDB rejects others."""
    return {name: value for name, value in values.items() if re.search(rf"\${name}\b", query.text)}


def with_values(query: Query, given: Mapping[str, Any]) -> dict[str, Value]:
    """A query's parameters: the given values over its defaults; lists are joined by commas.

    Raises:
        CurateError: the query has no such parameter, or its value has another type.
    """
    values = dict(query.defaults)
    for key, value in given.items():
        if key not in values:
            known = ", ".join(f"{name}={typed(value)}" for name, value in values.items()) or "none"
            raise CurateError(f"query {query.name} has no parameter {key}. Choose from: {known}")
        default = query.defaults[key]
        values[key] = ",".join(value) if isinstance(value, list | tuple) else value
        allowed = (float, int) if type(default) is float else (type(default),)
        if type(values[key]) not in allowed:
            raise CurateError(f"-p {key}={typed(value)}: give a value like {key}={typed(default)}")
    return values


def typed(value: object) -> str:
    """A parameter's value as typed after `-p NAME=`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(files: Iterable[Traversable]) -> dict[str, Query]:
    return {
        name: _parse(name, file.read_text(encoding="utf-8"))
        for file in files
        if (name := file.name.removesuffix(".sql")) != file.name
    }


def _parse(name: str, text: str) -> Query:
    about, _, parameters = text.partition("\n")[0].removeprefix("-- ").partition(" Parameters: ")
    defaults = {
        key: _value(value.strip()) for key, value in re.findall(r"(\w+) = ([^,]+)", parameters)
    }
    return Query(name, about.strip(), text, defaults | (RANKING if _RANKS.search(text) else {}))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
