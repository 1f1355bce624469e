"""Down the ranking, stratum by stratum, reading texts only as far as the budget needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from curate.selection.candidates import Candidates, Row
from curate.selection.recipe import Recipe
from curate.selection.rules import Rule
from curate.storage.schema import MESSAGES

BLOCK = 1024
"""Rows that the rules prepare for at once."""
MOST = 250_000
"""Rows whose texts are in memory at once."""
SPARE = 64
"""Extra rows to read beyond the expected number, so that one query is usually enough."""

ROWS = pa.schema(
    [
        ("place", pa.int64()),
        ("example_id", pa.string()),
        ("messages", MESSAGES),
        ("source", pa.string()),
        ("rank", pa.int64()),
        ("gap", pa.float64()),
        ("tokens", pa.int64()),
    ]
)


@dataclass
class Stratum:
    """A part of the ranking: the rest of its share, and the place of its last row so far."""

    number: int
    left: int = 0
    after: int = 0
    is_exhausted: bool = False


class Walk:
    """Takes rows, best first, until a budget (rows, or answer tokens) is met or nothing is left.

    Every stratum has a share of the budget; what one can't use is split among the others. `cut`
    holds the gaps of the last row taken and of the next eligible one.
    """

    def __init__(self, candidates: Candidates, recipe: Recipe, rules: Sequence[Rule]) -> None:
        self.cut: tuple[float, float] | None = None
        self._candidates, self._rules = candidates, rules
        self._by_tokens = recipe.tokens is not None
        self._has_cut = not (recipe.is_random or recipe.balance or recipe.length_bins)
        self._strata = [Stratum(number) for number in candidates.strata()]
        self._taken: list[pa.Table] = [ROWS.empty_table()]
        self._left_out: list[pa.Table] = []

    def go(self, wanted: int) -> None:
        """Take rows for this budget."""
        strata = self._strata
        while wanted > 0 and strata:
            share, rest = divmod(wanted, len(strata))
            for number, stratum in enumerate(strata):  # the remainder goes to the best
                stratum.left = share + (number < rest)
            used = self._use(strata)
            wanted -= used
            strata = [stratum for stratum in strata if not stratum.is_exhausted]
            if not used:  # no share holds a row: split the budget among the better half
                strata = strata[: len(strata) // 2]

    @property
    def taken(self) -> pa.Table:
        """The rows taken, best first."""
        return pa.concat_tables(self._taken).sort_by("place").drop_columns("place")

    @property
    def left_out(self) -> pa.Table:
        """The excluded rows, best first, each with its rule and reason."""
        until = {
            each.number: sys.maxsize if each.is_exhausted else each.after for each in self._strata
        }
        refused = self._candidates.refused(until)
        found = [each.select(refused.column_names) for each in self._left_out]
        return pa.concat_tables([refused, *found]).sort_by("place").drop_columns("place")

    def _use(self, strata: Sequence[Stratum]) -> int:
        """Continue until each share or its stratum is used up; return how much was used."""
        shared = sum(stratum.left for stratum in strata)
        hungry = {stratum.number: stratum for stratum in strata if stratum.left}
        expected = shared / (self._candidates.mean_tokens if self._by_tokens else 1)
        limit = min(MOST, int(expected * 1.25) + SPARE)
        while hungry:
            after = {number: stratum.after for number, stratum in hungry.items()}
            table = self._candidates.read(after, limit)
            self._take(table, hungry)
            if table.num_rows < limit:
                for stratum in hungry.values():
                    stratum.is_exhausted = True
                break
            limit = min(MOST, 2 * limit)
        return shared - sum(stratum.left for stratum in strata)

    def _take(self, table: pa.Table, hungry: dict[int, Stratum]) -> None:
        """Take rows of a table; strata that use up their share stop being hungry."""
        taken, left_out = [], []
        rows: Iterator[tuple[int, Row]] = enumerate(self._rows(table))
        for at, row in rows:
            stratum = hungry.get(row.stratum)
            if stratum is None:
                continue
            why = self._why(row)
            cost = row.tokens if self._by_tokens else 1
            if why is None and cost > stratum.left:
                del hungry[row.stratum]
                rows = chain([(at, row)], rows)  # put back: it may be the first after the cut
            elif why is None:
                taken.append(at)
                stratum.after, stratum.left = row.place, stratum.left - cost
                for rule in self._rules:
                    rule.take(row)
                if not stratum.left:
                    del hungry[row.stratum]
            else:
                stratum.after = row.place
                left_out.append((at, *why))
            if not hungry:
                break
        self._taken.append(table.select(ROWS.names).take(pa.array(taken, pa.int64())).cast(ROWS))
        if left_out:
            places, rules, reasons = zip(*left_out, strict=True)
            listed = table.drop_columns("messages").take(pa.array(places))
            listed = listed.append_column("rule", pa.array(rules))
            self._left_out.append(listed.append_column("why", pa.array(reasons)))
        if self._has_cut and not hungry:
            self._note_cut(row for _, row in rows)

    def _note_cut(self, others: Iterator[Row]) -> None:
        gaps = [table["gap"][-1].as_py() for table in self._taken if table.num_rows]
        first = next((row for row in others if self._why(row) is None), None)
        self.cut = (gaps[-1], first.gap) if gaps and first is not None else None

    def _rows(self, table: pa.Table) -> Iterator[Row]:
        for batch in table.to_batches(max_chunksize=BLOCK):
            rows = [Row(**row) for row in batch.to_pylist()]
            for rule in self._rules:
                rule.prepare(rows)
            yield from rows

    def _why(self, row: Row) -> tuple[str, str] | None:
        """The first rule that excludes a row, and its reason."""
        reasons = ((rule.name, rule.check(row)) for rule in self._rules)
        return next(((name, why) for name, why in reasons if why is not None), None)
