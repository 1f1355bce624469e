"""What the report shows, as plain tables: from SQL, the named queries and the export."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from pydantic import TypeAdapter

from curate.corpus import queries, show
from curate.corpus.corpus import Corpus
from curate.corpus.show import tokens_of_examples, without_tokens
from curate.errors import CurateError
from curate.report.lens import Row, ask, ask_named, gap_bins, name_sources, ranking
from curate.selection.recipe import Recipe
from curate.selection.select import select
from curate.storage import documents

POINTS = 3000
TAKEN_POINTS = 400
SNIPPET = 200


@dataclass(frozen=True)
class Shown:
    """An export: its recipe, its rows (best first), and how many others each rule excluded.

    `cut` holds the gaps of the last row and of the first one after it; if it is `inside_noise`,
    they differ by less than `noise` nats, and rounding could have swapped them. `manifest` is None
    for the default.
    """

    recipe: Recipe
    ids: list[str]
    left_out: dict[str, int]
    ranked: int
    cut: tuple[float, float] | None
    noise: float
    inside_noise: bool
    manifest: Path | None = None


@dataclass(frozen=True)
class Ranking:
    """How the gaps are distributed, whether the models agree, and what the export takes.

    `tables` are the charts' data, by name. `sample` is a uniform sample of all ranked examples;
    `totals` counts the export's rows, and `taken` holds the first of them and some evenly spaced
    others. All use the recipe's ε, metric and ensemble.
    """

    shown: Shown
    span: Row
    sources: list[str]
    tables: dict[str, list[Row]]
    sample: list[Row]
    totals: Row
    taken: list[Row]

    @property
    def points(self) -> list[Row]:
        """The examples in the scatter plot: the sample, then exported rows that are not in it."""
        drawn = {row["id"] for row in self.sample}
        return self.sample + [row for row in self.taken if row["id"] not in drawn]


@dataclass(frozen=True)
class Findings:
    """Everything that a report shows; `ranking` is None if nothing is ranked yet."""

    path: Path
    status: Row
    models: list[Row]
    recipe: Recipe = field(default_factory=Recipe)
    ranking: Ranking | None = None

    @property
    def members(self) -> int:
        """The number of misaligned models in the recipe's ensemble."""
        misaligned = {row["model"] for row in self.models if row["role"] == "misaligned"}
        return len(misaligned.difference(self.recipe.hold_out))


def find(corpus: Corpus, export: Path | None = None) -> Findings:
    """Query a corpus for everything that the report shows about an export, or the default one.

    Raises:
        CurateError: the manifest belongs to another corpus, or the corpus is broken.
    """
    status = show.status(corpus)
    models = [
        row | {"entry": corpus.manifest.models[row["model"]]}
        for row in sorted(status["models"], key=lambda row: (row["role"], row["model"]))
    ]
    chosen = _exported(export) if export else None
    recipe = chosen.recipe if chosen else Recipe()
    if not status["ranked"]:
        return Findings(corpus.path, status, models, recipe)
    with ranking(corpus, recipe) as cursor:
        chosen = chosen or _best_tenth(corpus, status["ranked"])
        return Findings(corpus.path, status, models, chosen.recipe, _ranking(cursor, chosen))


def _best_tenth(corpus: Corpus, ranked: int) -> Shown:
    """The default recipe over a tenth of the `ranked` examples."""
    top = queries.depth(ranked)
    recipe = Recipe(top=top)
    chosen = select(corpus, recipe, top)
    ids = chosen.rows["example_id"].to_pylist()
    cut = chosen.cut, chosen.noise, chosen.inside_noise
    return Shown(recipe, ids, chosen.left_by, chosen.ranked, *cut)


def _exported(path: Path) -> Shown:
    """The export of a manifest, of its folder or of its data."""
    try:
        path = documents.manifest_of(path)
        record: dict[str, Any] = documents.load(path)
        counts, cut = record["counts"], record["cut"]
        return Shown(
            TypeAdapter(Recipe).validate_python(record["recipe"]),
            [row["example_id"] for row in record["safe"]],
            dict(counts["left_out"]),
            int(counts["ranked"]),
            tuple(cut["gaps"]) if cut["gaps"] else None,
            float(cut["noise"]),
            bool(cut["inside_noise"]),
            path,
        )
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise CurateError(
            f"{path}: not an export's manifest ({why}); give the .manifest.json beside the data"
        ) from None


def _ranking(cursor: duckdb.DuckDBPyConnection, chosen: Shown) -> Ranking:
    recipe, count = chosen.recipe, len(chosen.ids)
    cursor.execute(
        "create temp table taken as select unnest($ids)::uuid as key, "
        "unnest(range(len($ids))) as place",
        {"ids": chosen.ids},
    )
    span, sources, totals = ask(cursor, "span")[0], name_sources(cursor), ask(cursor, "totals")[0]
    if totals["rows"] < count:
        raise CurateError(
            f"{chosen.manifest}: {count - totals['rows']:,} of its {count:,} selected examples are "
            "not ranked in this corpus. Give the corpus that it was exported from."
        )
    low, step, bins = gap_bins(span["low"], span["high"])
    top: dict[str, Any] = {"top": max(count, 1), "refusals": recipe.refusals != "drop"}
    tables = {
        "cells": ask(cursor, "cells", low=low, step=step, bins=bins),
        "gap_by_source": ask(cursor, "quantiles_by_source"),
        "gap_by_length": ask(cursor, "quantiles_by_length"),
        "depth": ask(cursor, "depth"),
        "agreement": ask_named(cursor, "agreement"),
        "leave_one_out": ask_named(cursor, "leave_one_out", **top),
        "epsilon": [],
        "composition": ask(cursor, "composition"),
    }
    if recipe.metric != "difference":  # that has no ε
        usual = str(queries.find("epsilon_sweep").defaults["epsilons"])
        epsilons = " ".join(map(str, sorted({recipe.epsilon, *map(float, usual.split())})))
        asked = top | {"epsilon": recipe.epsilon, "epsilons": epsilons}
        tables["epsilon"] = ask_named(cursor, "epsilon_sweep", **asked)
    return Ranking(
        shown=chosen,
        span=span | {"first": low, "last": low + bins * step},
        sources=sources,
        tables=tables,
        sample=ask(cursor, "sample", points=POINTS, chars=SNIPPET),
        totals=totals,
        taken=ask(cursor, "taken", chars=SNIPPET, whole=ROWS, every=1 + count // TAKEN_POINTS),
    )


ROWS = 50
LONGEST = 20_000  # characters of one message; a page must open on a phone
MOST_TOKENS = 1_500  # colored tokens of one answer
SHADES = (0.05, 0.25, 0.75, 2.0)  # nats: a token with a larger gap has the next shade


Token = tuple[str, float, str]
"""A piece of the answer, its gap in nats, and the class of its color."""


@dataclass(frozen=True)
class Reading:
    """One example in full: its numbers, messages and, if stored, its answer's tokens."""

    row: Row
    messages: list[tuple[str, str]]
    tokens: list[Token]
    rest: str


def readings(corpus: Corpus, found: Ranking) -> tuple[list[Reading], list[str]]:
    """The export's first rows, with long texts cut in the middle, and the models without tokens."""
    first = [row for row in found.taken if row["messages"] is not None]
    shown = corpus, [row["id"] for row in first], found.shown.recipe.hold_out
    kept = tokens_of_examples(*shown)
    made = []
    for row in first:
        messages = [(turn["role"], _cut(turn["content"] or "")) for turn in row["messages"]]
        tokens = kept.get(row["id"], [])
        colored = [(text, gap, _shade(gap)) for text, gap in tokens[:MOST_TOKENS]]
        rest = _cut("".join(text for text, _ in tokens[MOST_TOKENS:]))
        made.append(Reading(row, messages, colored, rest))
    return made, without_tokens(*shown)


def _shade(gap: float) -> str:
    shade = bisect_left(SHADES, abs(gap))
    return f"{'p' if gap > 0 else 'm'}{shade}" if shade else ""


def _cut(text: str) -> str:
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"
