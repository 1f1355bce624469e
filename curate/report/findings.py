"""What the report shows, as plain tables: from SQL, the named queries and the export."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.corpus import queries
from curate.corpus.show import tokens_of_examples
from curate.errors import CurateError
from curate.report import shown
from curate.report.lens import Row, ask, ask_named, gap_bins, name_sources, ranking
from curate.selection.recipe import Recipe

if TYPE_CHECKING:
    import duckdb

    from curate.corpus.corpus import Corpus
    from curate.report.shown import Shown

POINTS = 3000
TAKEN_POINTS = 400
SNIPPET = 200


@dataclass(frozen=True)
class Ranking:
    """How the gaps lie, whether the models agree, and what the export takes.

    `cells` count every ranked example; `sample` is a uniform draw of them. `totals` count the
    export's rows; `taken` are the first of them and some evenly spaced ones. All use the recipe's
    ε, metric and ensemble; `epsilon_sweep` is empty where ε plays no part.
    """

    shown: Shown
    span: Row
    sources: list[str]
    cells: list[Row]
    by_source: list[Row]
    by_length: list[Row]
    depth: list[Row]
    sample: list[Row]
    agreement: list[Row]
    leave_one_out: list[Row]
    epsilon_sweep: list[Row]
    totals: Row
    taken: list[Row]
    composition: list[Row]

    @property
    def points(self) -> list[Row]:
        """The examples that the scatter draws: the sample, then what is taken besides."""
        drawn = {row["id"] for row in self.sample}
        return self.sample + [row for row in self.taken if row["id"] not in drawn]


@dataclass(frozen=True)
class Findings:
    """All that a report shows; `ranking` is None where nothing is ranked yet."""

    path: Path
    status: Row
    models: list[Row]
    recipe: Recipe = field(default_factory=Recipe)
    ranking: Ranking | None = None

    @property
    def members(self) -> int:
        """How many misaligned models the recipe ranks by."""
        misaligned = {row["model"] for row in self.models if row["role"] == "misaligned"}
        return len(misaligned.difference(self.recipe.hold_out))


def find(corpus: Corpus, export: Path | None = None) -> Findings:
    """Ask a corpus all that the report shows, of the export of this manifest or of the default.

    Raises:
        CurateError: the manifest is no export of this corpus, or the corpus is broken.
    """
    status = queries.status(corpus)
    models = [
        row | {"entry": corpus.manifest.models[row["model"]]}
        for row in sorted(status["models"], key=lambda row: (row["role"], row["model"]))
    ]
    chosen = shown.exported(export) if export else None
    recipe = chosen.recipe if chosen else Recipe()
    unranked = Findings(corpus.path, status, models, recipe)
    if not status["ranked"]:
        return unranked
    with ranking(corpus, recipe) as cursor:
        span = ask(cursor, "span")[0]
        if not span["ranked"]:
            return unranked
        chosen = chosen or shown.best_tenth(corpus, span["ranked"])
        return Findings(corpus.path, status, models, chosen.recipe, _ranking(cursor, span, chosen))


def _ranking(cursor: duckdb.DuckDBPyConnection, span: Row, chosen: Shown) -> Ranking:
    recipe, count = chosen.recipe, len(chosen.ids)
    cursor.execute(
        "create temp table taken as select unnest($ids)::uuid as key, "
        "unnest(range(len($ids))) as place",
        {"ids": chosen.ids},
    )
    sources, totals = name_sources(cursor), ask(cursor, "totals")[0]
    if totals["rows"] < count:
        raise CurateError(
            f"{chosen.manifest}: {count - totals['rows']:,} of its {count:,} selected examples are "
            "not ranked in this corpus; name the corpus that it was exported from"
        )
    top: dict[str, Any] = {"top": max(count, 1), "refusals": recipe.refusals != "drop"}
    sweep = []
    if recipe.metric != "difference":
        usual = str(queries.find("epsilon_sweep").defaults["epsilons"])
        epsilons = sorted({recipe.epsilon, *map(float, usual.split())})
        asked = {"usual": recipe.epsilon, "epsilons": " ".join(map(str, epsilons))}
        sweep = ask_named(cursor, "epsilon_sweep", **asked, **top)
    low, step, bins = gap_bins(span["low"], span["high"])
    return Ranking(
        shown=chosen,
        span=span | {"first": low, "last": low + bins * step},
        sources=sources,
        cells=ask(cursor, "cells", low=low, step=step, bins=bins),
        by_source=ask(cursor, "quantiles_by_source"),
        by_length=ask(cursor, "quantiles_by_length"),
        depth=ask(cursor, "depth"),
        sample=ask(cursor, "sample", points=POINTS, chars=SNIPPET),
        agreement=ask_named(cursor, "agreement"),
        leave_one_out=ask_named(cursor, "leave_one_out", **top),
        epsilon_sweep=sweep,
        totals=totals,
        taken=ask(cursor, "taken", chars=SNIPPET, whole=ROWS, every=1 + count // TAKEN_POINTS),
        composition=ask(cursor, "composition"),
    )


ROWS = 50
LONGEST = 20_000  # characters of one message; a page must open on a phone
MOST_TOKENS = 1_500  # coloured tokens of one answer
SHADES = ((0.05, 0), (0.25, 1), (0.75, 2), (2.0, 3), (math.inf, 4))  # nats: up to, shade


@dataclass(frozen=True)
class Token:
    """A piece of the answer, its gap in nats, and the class of its colour."""

    text: str
    gap: float
    shade: str


@dataclass(frozen=True)
class Reading:
    """One example in full: its numbers, its messages, and its answer's tokens where kept."""

    row: Row
    messages: list[tuple[str, str]]
    tokens: list[Token] | None
    rest: str


def readings(corpus: Corpus, found: Ranking) -> list[Reading]:
    """The first rows of the export, long texts cut in the middle."""
    first = [row for row in found.taken if row["messages"] is not None]
    hold_out = found.shown.recipe.hold_out
    tokens_of = tokens_of_examples(corpus, [row["id"] for row in first], hold_out)
    made = []
    for row in first:
        messages = [(turn["role"], _cut(turn["content"] or "")) for turn in row["messages"]]
        tokens = tokens_of.get(row["id"])
        coloured = None if tokens is None else [_token(*each) for each in tokens[:MOST_TOKENS]]
        rest = _cut("".join(text for text, _ in (tokens or [])[MOST_TOKENS:]))
        made.append(Reading(row, messages, coloured, rest))
    return made


def _token(text: str, gap: float) -> Token:
    shade = next(number for limit, number in SHADES if abs(gap) <= limit)
    return Token(text, gap, f"{'p' if gap > 0 else 'm'}{shade}" if shade else "")


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"
