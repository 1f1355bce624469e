"""The ranking as numbers: a table of what may be taken, in order, with the texts left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.reading.where import check_condition, first_line
from curate.selection.recipe import Recipe
from curate.system.sql import readable_errors

COLUMNS = ("source", "row", "messages", "prompt", "answer", "meta")
"""What `--where` sees of `examples`, beside the columns of `ranks`, which has the others."""


@dataclass(frozen=True)
class Row:
    """One example on its way: its place in the order (from 1), and its texts."""

    example_id: str
    stratum: int
    place: int
    rank: int
    gap: float
    tokens: int
    is_refusal: bool
    messages: list[dict[str, str]]
    source: str
    meta: dict[str, Any]

    @property
    def prompt(self) -> tuple[tuple[str, str], ...]:
        """The turns before the answer."""
        return tuple((turn["role"], turn["content"]) for turn in self.messages[:-1])

    @property
    def answer(self) -> str:
        """The last turn's text; empty where the texts were not read."""
        return self.messages[-1]["content"] if self.messages else ""

    def value(self, column: str) -> str:
        """A column of the source as text, or `source` itself; empty where there is none.

        Raises:
            CurateError: somebody else's part has a value that nests too deeply.
        """
        value = self.source if column == "source" else self.meta.get(column)
        try:
            return "" if value is None else str(value)
        except RecursionError:
            raise CurateError(
                f"{self.example_id}: its column {column!r} is nested too deeply to be read; name "
                "another column, or leave the example out with --where"
            ) from None


class Candidates:
    """A corpus ranked for one recipe: numbers in a temporary table, read in the recipe's order.

    `ranked` counts what has a gap, `passed` what of it the filter leaves.

    Raises:
        CurateError: the filter or an argument of the gap is wrong.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe) -> None:
        query, parameters = _query(recipe)
        with readable_errors():
            self._cursor = corpus.connection.cursor()
            if recipe.where is not None:
                check_condition(self._cursor, recipe.where)
            self._fill(query, parameters, recipe)
        self.ranked, self.passed, last = self._cursor.execute(
            "select count(*), count(*) filter (passes), coalesce(max(rank), 0) from pool"
        ).fetchall()[0]
        if recipe.where is not None and self.ranked != last:  # every rank stands there once
            raise CurateError(f"--where {recipe.where!r}: is no condition: it multiplies examples")
        self._meta = bool(recipe.refusal_field or set(recipe.per_group) - {"source"})

    def _fill(self, query: str, parameters: dict[str, object], recipe: Recipe) -> None:
        try:
            self._cursor.execute(f"create temp table pool as {query}", parameters)
        except (duckdb.BinderException, duckdb.ConversionException) as error:
            if recipe.where is None:
                raise
            raise CurateError(f"--where {recipe.where!r}: {first_line(error)}") from None

    def strata(self, recipe: Recipe) -> list[tuple[int, int, int]]:
        """Split the pool by `balance` and `length_bins`: (stratum, rows, tokens), best first.

        Without either there is one stratum, 0. Rows that the paper's rule would drop don't count.
        """
        if recipe.balance is not None or recipe.length_bins is not None:
            self._split(recipe)
        easy = {"drop": "not is_refusal", "only": "is_refusal"}.get(recipe.refusals, "true")
        counted = easy if recipe.refusal_rule == "paper" else "true"
        found: list[tuple[int, int, int]] = self._cursor.execute(
            f"select stratum, count(*) filter ({counted}), sum(tokens)::bigint from pool "
            "where passes group by stratum order by stratum"
        ).fetchall()
        return found

    def _split(self, recipe: Recipe) -> None:
        groups = "coalesce(value, '')" if recipe.balance is not None else "''"
        bins = "0"
        parameters: dict[str, object] = {}
        if recipe.length_bins is not None:
            bins = (
                "len(list_filter((select quantile_disc(tokens, $edges) from pool where passes), "
                "lambda edge: edge < tokens))"
            )
            count = recipe.length_bins
            parameters["edges"] = [number / count for number in range(1, count)] or [1.0]
        self._cursor.execute(
            f"create temp table split as select place, {groups} as part, {bins} as bin "
            "from pool where passes",
            parameters,
        )
        self._cursor.execute(
            "create temp table parts as select part, bin, row_number() over (order by min(place)) "
            "as stratum from split group by part, bin"
        )
        self._cursor.execute(
            "create or replace temp table pool as "
            "select pool.* replace (coalesce(parts.stratum, 0) as stratum) "
            "from pool left join split using (place) left join parts using (part, bin)"
        )

    def numbers(self, wanted: Sequence[tuple[int, int, int]]) -> pa.Table:
        """The next rows of some strata, each (stratum, after which place, how many), by place."""
        columns = "hex_id(key) as example_id, stratum, place, rank, gap, tokens, is_refusal"
        if len(wanted) == 1:
            stratum, after, limit = wanted[0]
            return self._cursor.sql(
                f"select {columns} from pool where passes and stratum = $stratum "
                "and place > $after order by place limit $limit",
                params={"stratum": stratum, "after": after, "limit": limit},
            ).to_arrow_table()
        strata, afters, limits = (list(column) for column in zip(*wanted, strict=True))
        return self._cursor.sql(
            "with asked as (select unnest($strata) as stratum, unnest($afters) as after, "
            "unnest($limits) as most) "
            f"select {columns} from pool join asked using (stratum) where passes and place > after "
            "qualify row_number() over (partition by stratum order by place) <= most "
            "order by place",
            params={"strata": strata, "afters": afters, "limits": limits},
        ).to_arrow_table()

    def texts(self, ids: Sequence[str]) -> pa.Table:
        """example_id, source, messages and, where a rule needs it, meta; in any order."""
        meta = "meta" if self._meta else "null::varchar as meta"
        return self._cursor.sql(
            f"select hex_id(key) as example_id, source, messages, {meta} from example_parts "
            "where key in (select unnest($ids)::uuid)",
            params={"ids": list(ids)},
        ).to_arrow_table()


def check_names(corpus: Corpus, recipe: Recipe) -> None:
    """Refuse names that would quietly choose nothing: models, and columns that no row has.

    Raises:
        CurateError: it says which names there are.
    """
    models = [name for name, e in corpus.manifest.models.items() if e.role == "misaligned"]
    for name in recipe.hold_out:
        if name not in models:
            raise CurateError(
                f"--hold-out {name}: no misaligned model has that name; there are "
                f"{', '.join(models) or 'none'}"
            )
    columns = [("--per-group", column) for column in recipe.per_group]
    columns += [
        ("--balance", recipe.balance or ""),
        ("--refusal-field", recipe.refusal_field or ""),
    ]
    for option, column in columns:
        if column and column != "source" and not _has(corpus, column):
            known = ", ".join(_some_columns(corpus)) or "none beside source"
            raise CurateError(f"{option} {column}: no row has a value in it; columns are {known}")


def _has(corpus: Corpus, column: str) -> bool:
    query = "select 1 from examples where meta ->> $column is not null limit 1"
    return bool(corpus.sql(query, {"column": _pointer(column)}).fetchall())


def _some_columns(corpus: Corpus) -> list[str]:
    """The columns of the first rows of every source."""
    query = """
    select distinct unnest(json_keys(meta)) as name
    from (from examples qualify row_number() over (partition by source order by row) <= 20)
    order by name
    """
    return [name for (name,) in corpus.sql(query).fetchall()]


def _pointer(column: str) -> str:
    """A JSON pointer to a top-level key: it can name any."""
    return "/" + column.replace("~", "~0").replace("/", "~1")


def _query(recipe: Recipe) -> tuple[str, dict[str, object]]:
    """The SELECT that fills the pool, and its parameters."""
    parameters: dict[str, object] = {
        "epsilon": recipe.epsilon,
        "hold_out": list(recipe.hold_out),
        "metric": recipe.metric,
    }
    joins = ""
    if recipe.where is not None or recipe.balance is not None:
        joins = f" join (select key, {', '.join(COLUMNS)} from example_parts) using (key)"
    counts = recipe.tokens is not None or recipe.length_bins is not None
    tokens = "n_tokens" if counts else "0"
    value = "null::varchar"
    if recipe.balance is not None:
        value = "source" if recipe.balance == "source" else "meta ->> $column"
        if recipe.balance != "source":
            parameters["column"] = _pointer(recipe.balance)
    place = "rank"
    if recipe.strategy == "random":
        # md5 and not DuckDB's own hash: the draw is the same in every version.
        place = "row_number() over (order by md5($seed || ':' || example_id), key)"
        parameters["seed"] = str(recipe.seed)
    passes = f"coalesce(({recipe.where}\n), false)" if recipe.where else "true"
    return (
        f"select key, rank, gap, is_refusal, {place} as place, {passes} as passes, "
        f"{tokens} as tokens, {value} as value, 0::bigint as stratum "
        f"from ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric){joins}",
        parameters,
    )
