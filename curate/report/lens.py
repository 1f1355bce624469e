"""The ranking as the report sees it: one table of numbers, and the questions of `sql/report/`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from curate.corpus import queries
from curate.system.sql import readable_errors

if TYPE_CHECKING:
    import duckdb

    from curate.corpus.corpus import Corpus
    from curate.selection.recipe import Recipe

Row = dict[str, Any]

SOURCES_SHOWN = 12
LABEL_WIDTH = 28


@contextmanager
def ranking(corpus: Corpus, recipe: Recipe) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor with the temporary tables `ranks` and `model_ranks`; gone with the cursor.

    The ranking is made once, as the recipe wants it. On this cursor the tables stand before the
    views of their names, so that three named queries answer for the recipe: `agreement`,
    `leave_one_out`, and `epsilon_sweep` with the recipe's ε as `usual`. Don't ask others: they
    compute gaps by the usual ε, look at every model, or join what the table `ranks` has already.

    Raises:
        CurateError: the recipe's ε, metric or held-out models are wrong.
    """
    values = {
        "epsilon": recipe.epsilon,
        "hold_out": list(recipe.hold_out),
        "metric": recipe.metric,
    }
    cursor = corpus.connection.cursor()
    try:
        with readable_errors():
            cursor.execute(_text("ranks"), values)
            cursor.execute(_text("model_ranks"), values)
        yield cursor
    finally:
        cursor.close()


def ask(cursor: duckdb.DuckDBPyConnection, name: str, **values: object) -> list[Row]:
    """The rows of one question of `sql/report/`."""
    return rows(cursor.execute(_text(name), values))


def ask_named(cursor: duckdb.DuckDBPyConnection, name: str, **values: object) -> list[Row]:
    """The rows of a named query that `ranking` names; its defaults where no value is given."""
    query = queries.find(name)
    return rows(cursor.execute(query.text, query.defaults | values))


def rows(result: duckdb.DuckDBPyConnection | duckdb.DuckDBPyRelation) -> list[Row]:
    """A small result as dicts."""
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def name_sources(cursor: duckdb.DuckDBPyConnection, top: int) -> list[Row]:
    """Ask for the sources, give the largest a label each, and make the table `labels` of them.

    Charts have room for a dozen names; what is beyond them shares one label that says so.
    """
    found = ask(cursor, "sources", top=top)
    names = labels([row["source"] for row in found])
    rest = found[SOURCES_SHOWN:] if len(found) > SOURCES_SHOWN + 1 else []
    for row, label in zip(found, names, strict=True):
        row["label"] = label
    for row in rest:
        row["label"] = f"{len(rest)} smaller sources"
    cursor.execute("create temp table labels (source varchar, label varchar)")
    for row in found:
        cursor.execute("insert into labels values ($source, $label)", {
            "source": row["source"], "label": row["label"],
        })  # fmt: skip
    return found


def labels(sources: Sequence[str | None]) -> list[str]:
    """A short name for each source, different for each: file names, with folders where needed."""
    paths = [PurePosixPath(source or "(no source)").parts or ("(no source)",) for source in sources]
    depth = 1
    while depth < 4 and len({parts[-depth:] for parts in paths}) < len(paths):
        depth += 1
    made: list[str] = []
    for parts in paths:
        label = _middle_out("/".join(parts[-depth:]), LABEL_WIDTH)
        taken = sum(other == label or other.startswith(f"{label} #") for other in made)
        made.append(f"{label} #{taken + 1}" if taken else label)
    return made


def gap_bins(low: float, high: float, wanted: int = 48) -> tuple[float, float, int]:
    """The first edge, the width and the number of round bins that cover [low, high]."""
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


def length_label(length_bin: int) -> str:
    """The answer lengths of one doubling: `8–15` tokens."""
    low, high = 2**length_bin, 2 ** (length_bin + 1) - 1
    return f"{low:,}–{high:,}" if high > low else str(low)


def _middle_out(text: str, width: int) -> str:
    shown = " ".join(text.split())
    if len(shown) <= width:
        return shown
    return f"{shown[: width // 2 - 1]}…{shown[-(width - width // 2) :]}"


def _text(name: str) -> str:
    return (resources.files("curate.sql") / "report" / f"{name}.sql").read_text("utf-8")


def only(row: Mapping[str, Any], *names: str) -> Row:
    """Some columns of a row."""
    return {name: row[name] for name in names}
