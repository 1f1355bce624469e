"""The ranking as a table of numbers in the recipe's order; texts are read only when needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import duckdb
import pyarrow as pa

from curate.corpus import refusals
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.reading.where import check_condition, first_line
from curate.selection.recipe import Recipe
from curate.system.sql import MAX_SHOWN, readable_errors, shown_columns

OF_EXAMPLES = "* exclude (is_refusal, n_bytes)"
"""The columns of `examples` that `--where` sees, besides those of `ranks`."""


class Row(NamedTuple):
    """One example as the rules see it.

    `place` is its number in the recipe's order; `values` holds its texts in `value_columns`, empty
    if it has none.
    """

    example_id: str
    stratum: int
    place: int
    rank: int
    gap: float
    tokens: int
    source: str
    messages: list[dict[str, str]]
    values: list[str]


class Candidates:
    """A corpus ranked for one recipe: a temporary table of numbers, read in the recipe's order.

    `ranked` counts the examples that have a gap, `passed` those of them that pass `where`.

    Raises:
        CurateError: the filter or an argument of the gap is wrong.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe) -> None:
        self._columns = value_columns(recipe)
        with readable_errors():
            self._cursor = corpus.connection.cursor()
            if recipe.where is not None:
                refusals.define(self._cursor, recipe.where)
                check_condition(self._cursor, recipe.where)
            query, parameters = _query(recipe)
            try:
                self._cursor.execute(f"create temp table pool as {query}", parameters)
            except (duckdb.BinderException, duckdb.ConversionException) as error:
                if recipe.where is None:
                    raise
                names = self._cursor.sql(
                    f"from ranks join (select {OF_EXAMPLES} from example_rows) using (key) limit 0"
                )
                raise CurateError(
                    f"--where {recipe.where!r}: {first_line(error)} The columns are: "
                    f"{shown_columns(names)}."
                ) from None
        self.ranked, self.passed, tokens, last = self._cursor.execute(
            "select count(*), count(*) filter (passes), avg(tokens) filter (passes), "
            "coalesce(max(rank), 0) from pool"
        ).fetchall()[0]
        self.mean_tokens = max(1.0, tokens or 0)
        if recipe.where is not None and self.ranked != last:  # unnest(tags) <> 'x' repeats rows
            raise CurateError(
                f"--where {recipe.where!r}: not a condition on single rows: it duplicates them."
            )

    def strata(self) -> list[int]:
        """The parts into which `balance` and `length_bins` split the pool, the best first."""
        found = self._cursor.execute(
            "select distinct stratum from pool where passes and not is_refused order by stratum"
        ).fetchall()
        return [stratum for (stratum,) in found]

    def read(self, after: Mapping[int, int], limit: int) -> pa.Table:
        """The next rows of each stratum after a place, by place, with the columns of `Row`."""
        parameters: dict[str, object] = {
            "strata": list(after),
            "after": list(after.values()),
            "limit": limit,
        }
        values = [f"coalesce({_value(name, parameters)}, '')" for name in self._columns]
        return self._cursor.sql(
            f"""
            with wanted as (
                from pool
                join (select unnest($strata) as stratum, unnest($after) as last) using (stratum)
                where passes and not is_refused and place > last
                order by place
                limit $limit
            )
            select hex_id(key) as example_id, stratum, place, rank, gap, tokens, source, messages,
                   [{", ".join(values)}]::varchar[] as "values"
            from wanted
            join example_parts using (key)
            order by place
            """,
            params=parameters,
        ).to_arrow_table()

    def refused(self, until: Mapping[int, int]) -> pa.Table:
        """The rows of each stratum, up to a place, that the paper's refusal rule excludes."""
        return self._cursor.sql(
            """
            select place, hex_id(key) as example_id, rank, gap, 'refusals' as rule,
                   if(is_refusal, 'a refusal', 'no refusal') as why
            from pool
            join (select unnest($strata) as stratum, unnest($until) as last) using (stratum)
            where passes and is_refused and place <= last
            """,
            params={"strata": list(until), "until": list(until.values())},
        ).to_arrow_table()


def value_columns(recipe: Recipe) -> list[str]:
    """The columns whose values the rules need."""
    return [*recipe.per_group, *([recipe.refusal_field] if recipe.refusal_field else [])]


def check_names(corpus: Corpus, recipe: Recipe) -> None:
    """Reject names of models and columns that would silently match nothing.

    Raises:
        CurateError: a name is unknown.
    """
    models = corpus.manifest.misaligned
    for name in recipe.hold_out:
        if name not in models:
            raise CurateError(
                f"--hold-out {name}: no misaligned model has this name. Choose from: "
                f"{', '.join(models) or 'none'}"
            )
    asked = [("--per-group", column) for column in recipe.per_group]
    asked += [("--balance", recipe.balance), ("--refusal-field", recipe.refusal_field)]  # type: ignore[list-item]
    for option, column in asked:
        if column and not _has(corpus, column):
            kinds = corpus.manifest.columns | dict.fromkeys(("source", "prompt"), "varchar")
            known = ", ".join(f"{name} {kind.lower()}" for name, kind in kinds.items())[:MAX_SHOWN]
            why = "no row has a value in it" if column in kinds else "no source has such a column"
            raise CurateError(f"{option} {column}: {why}. Columns: {known}")


def _has(corpus: Corpus, column: str) -> bool:
    parameters: dict[str, object] = {}
    value = _value(column, parameters)
    found = corpus.sql(f"select 1 from examples where {value} is not null limit 1", parameters)
    return bool(found.fetchall())


def _value(column: str, parameters: dict[str, object]) -> str:
    """A source's column as SQL; `source` and `prompt` are curate's own."""
    if column == "source":
        return "source"
    if column == "prompt":  # all turns before the answer
        return "to_json(messages[1:-2])::varchar"
    name = f"column_{len(parameters)}"
    # A JSON pointer can name any key.
    parameters[name] = "/" + column.replace("~", "~0").replace("/", "~1")
    return f"meta ->> ${name}"


def kept_by_flag(recipe: Recipe) -> str:
    """SQL for the rows that the paper's refusal rule leaves; rules over texts are applied later."""
    if recipe.reads_refusals:
        return "true"
    return {"drop": "not is_refusal", "only": "is_refusal"}.get(str(recipe.refusals), "true")


def _query(recipe: Recipe) -> tuple[str, dict[str, object]]:
    """The SELECT that fills the pool, and its parameters."""
    parameters = recipe.gap
    texts = recipe.where is not None or recipe.balance is not None
    join = f"join (select {OF_EXAMPLES} from example_rows) using (key)" if texts else ""
    place = "rank"
    if recipe.is_random:
        # md5, because DuckDB's own hash may change between versions.
        place = "row_number() over (order by md5($seed || ':' || example_id), key)"
        parameters["seed"] = str(recipe.seed)
    part = f"coalesce({_value(recipe.balance, parameters)}, '')" if recipe.balance else "''"
    counts = recipe.tokens is not None or recipe.length_bins is not None
    passes = f"coalesce(({recipe.where}\n), false)" if recipe.where else "true"
    query = f"""
    select key, rank, gap, is_refusal, {place} as place,
           {passes} as passes,
           not ({kept_by_flag(recipe)}) as is_refused,
           {"n_tokens" if counts else "0"}::bigint as tokens,
           {part} as part
    from ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric) {join}
    """
    if recipe.balance is None and recipe.length_bins is None:
        return f"select *, 0 as stratum from ({query})", parameters
    bins = "0"
    if recipe.length_bins is not None:  # answers of equal length share a bin
        parameters["bins"] = recipe.length_bins
        bins = """
        (rank() over (partition by passes order by tokens) - 1) * $bins
            // count(*) over (partition by passes)
        """
    # A stratum is identified by the place of its best row.
    return (
        "select *, min(place) over (partition by passes, part, bin) as stratum "
        f"from (select *, {bins} as bin from ({query}))",
        parameters,
    )
