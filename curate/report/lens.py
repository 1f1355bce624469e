"""The ranking as the report sees it: one table of numbers, and the queries of `sql/report/`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import duckdb

from curate.corpus import queries
from curate.corpus.corpus import Corpus, dicts
from curate.selection.recipe import Recipe
from curate.system.sql import readable_errors

Row = dict[str, Any]

SOURCES_SHOWN = 12
LABEL_WIDTH = 28


@contextmanager
def ranking(corpus: Corpus, recipe: Recipe) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor with the temporary tables `ranks` and `model_ranks`, which end with the cursor.

    The tables replace the views of the same names, so `agreement`, `leave_one_out` and
    `epsilon_sweep` use the recipe. Other named queries don't: they look at every model, or use the
    default ε.

    Raises:
        CurateError: the recipe's ε, metric or held-out models are wrong.
    """
    with readable_errors(), corpus.connection.cursor() as cursor:
        cursor.execute(_text("ranks"), recipe.gap)
        cursor.execute(_text("model_ranks"), recipe.gap)
        yield cursor


def ask(cursor: duckdb.DuckDBPyConnection, name: str, **values: object) -> list[Row]:
    """The rows of one query of `sql/report/`."""
    return dicts(cursor.sql(_text(name), params=values))


def ask_named(cursor: duckdb.DuckDBPyConnection, name: str, **values: object) -> list[Row]:
    """The rows of a named query over `ranking`, with its defaults for values not given."""
    query = queries.find(name)
    return dicts(cursor.sql(query.text, params=queries.bound(query, query.defaults | values)))


def name_sources(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """Make the table `labels`: short names of the largest sources, and one for the rest."""
    sources = [row["source"] for row in ask(cursor, "sources")]
    names = labels(sources)
    if len(names) > SOURCES_SHOWN + 1:
        rest = len(names) - SOURCES_SHOWN
        names[SOURCES_SHOWN:] = [f"{rest} smaller sources"] * rest
    cursor.execute(
        "create temp table labels as select unnest($sources::varchar[]) as source, "
        "unnest($names::varchar[]) as label",
        {"sources": sources, "names": names},
    )
    return list(dict.fromkeys(names))


def labels(sources: Sequence[str]) -> list[str]:
    """A distinct short name for each source: its file name, with folders where needed."""
    by_depth = (["/".join(s.split("/")[-depth:]) for s in sources] for depth in (1, 2, 3))
    names = next((names for names in by_depth if len(set(names)) == len(names)), sources)
    made: list[str] = []
    for name in names:
        label = _middle_out(name)
        taken = sum(other == label or other.startswith(f"{label} #") for other in made)
        made.append(f"{label} #{taken + 1}" if taken else label)
    return made


def gap_bins(low: float, high: float, wanted: int = 48) -> tuple[float, float, int]:
    """The first edge, the width and the number of bins with round edges that cover [low, high]."""
    spread = high - low
    if not spread > 0:
        spread = max(abs(low), 1.0) * 0.1
        low -= spread / 2
    raw = spread / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    width = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.floor(low / width)
    last = math.floor((low + spread) / width)
    return first * width, width, last - first + 1


def _middle_out(text: str) -> str:
    half = LABEL_WIDTH // 2
    return text if len(text) <= LABEL_WIDTH else f"{text[: half - 1]}…{text[-half:]}"


def _text(name: str) -> str:
    return (resources.files("curate.sql") / "report" / f"{name}.sql").read_text("utf-8")
