"""Questions: the named queries of `sql/` with their parameters, and the looks built on them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from curate.errors import CurateError

if TYPE_CHECKING:
    import duckdb

    from curate.corpus import Corpus


@dataclass(frozen=True)
class Query:
    """A file of `sql/`: what it answers, its text, and its parameters with their defaults."""

    name: str
    about: str
    text: str
    defaults: dict[str, int | float | bool | str]


def named() -> dict[str, Query]:
    """All named queries, by name."""
    files = sorted(resources.files("curate.sql").iterdir(), key=lambda file: file.name)
    return {
        query.name: query
        for query in (
            _parse(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
            for file in files
            if file.name.endswith(".sql")
        )
    }


def ask(corpus: Corpus, question: str, given: list[str]) -> duckdb.DuckDBPyRelation:
    """Answer a SELECT, or the named query `question` with `key=value` parameters.

    Raises:
        CurateError: no such query, a wrong parameter, or SQL that DuckDB refuses.
    """
    if re.fullmatch(r"\w+", question):
        query = named().get(question)
        if query is None:
            raise CurateError(f"no query is called {question}; see `curate sql --list`")
        return corpus.sql(query.text, with_values(query, given))
    if given:
        raise CurateError("-p goes with a named query; write the value into your own SELECT")
    return corpus.sql(question)


def status(corpus: Corpus) -> dict[str, Any]:
    """What the corpus holds and what is missing, per model; see sql/coverage.sql."""
    coverage = _dicts(ask(corpus, "coverage", []))
    ranked = "select count(*) from gaps" if _has_ensemble(corpus) else "select 0"
    counts = _dicts(corpus.sql(f"select (select count(*) from examples) as n, ({ranked}) as m"))[0]
    reasons = _dicts(ask(corpus, "skips", []).limit(10))
    return {
        "corpus": str(corpus.path),
        "examples": counts["n"],
        "ranked": counts["m"],
        "models": coverage,
        "skipped": reasons,
        "references": {name: entry.reference for name, entry in corpus.manifest.models.items()},
        "settings": asdict(corpus.manifest.settings) if corpus.manifest.settings else None,
    }


def one_example(corpus: Corpus, prefix: str) -> dict[str, Any]:
    """One example with its scores and rank, found by its id or the id's first characters.

    Raises:
        CurateError: none or several start so.
    """
    matches = corpus.sql(
        "select example_id from examples where starts_with(example_id, $prefix) limit 2",
        {"prefix": prefix},
    ).fetchall()
    if len(matches) != 1:
        count = "no example" if not matches else "more than one example"
        raise CurateError(f"{corpus.path}: {count} has an id that starts with {prefix!r}")
    key = {"id": matches[0][0]}
    example = _dicts(corpus.sql("select * from examples where example_id = $id", key))[0]
    example["scores"] = _dicts(
        corpus.sql(
            "select model, role, n_tokens, nll, truncated from scores join models using (model) "
            "where example_id = $id order by role, model",
            key,
        )
    )
    example["skipped"] = _dicts(
        corpus.sql("select model, reason from skipped where example_id = $id order by model", key)
    )
    gaps = "select gap, rank, rank_kept, unit from gaps where example_id = $id"
    ranked = _dicts(corpus.sql(gaps, key)) if _has_ensemble(corpus) else []
    example["gap"] = next(iter(ranked), None)
    return example


def with_values(query: Query, given: list[str]) -> dict[str, int | float | bool | str]:
    """A query's parameters: its defaults, replaced by `key=value` texts.

    Raises:
        CurateError: not of that form, or the query has no such parameter.
    """
    values = dict(query.defaults)
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            raise CurateError(f"-p {item}: give a parameter as key=value")
        if key not in values:
            known = ", ".join(f"{name}={value}" for name, value in values.items()) or "none"
            raise CurateError(f"query {query.name} has no parameter {key}; it has: {known}")
        values[key] = _value(text)
    return values


def _parse(name: str, text: str) -> Query:
    about, _, parameters = text.partition("\n")[0].removeprefix("-- ").partition(" Parameters: ")
    defaults = {
        key: _value(value.strip()) for key, value in re.findall(r"(\w+) = ([^,]+)", parameters)
    }
    return Query(name, about.strip(), text, defaults)


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _has_ensemble(corpus: Corpus) -> bool:
    """Whether there is a gap to ask for: a corpus scored by the aligned model alone has none."""
    return any(entry.role == "misaligned" for entry in corpus.manifest.models.values())


def _dicts(relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
    from curate.corpus import readable_errors

    with readable_errors():
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
