"""Down the ranking, stratum by stratum, reading texts only as far as the budget needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from curate.selection.candidates import Candidates, Row
from curate.selection.recipe import Recipe
from curate.selection.rules import Refusals, Sieve

BLOCK = 2048
"""Rows that the rules prepare for at once."""
MOST = 250_000
"""Rows whose texts are held at once."""
SPARE = 64
"""Rows read beyond what is expected to be enough, so that one reading mostly is."""


@dataclass
class Stratum:
    """A part of the ranking with its share of the budget, and how far down it has been read."""

    number: int
    rows: int
    mean_tokens: float
    left: int = 0
    after: int = 0
    seen: int = 0
    taken: int = 0
    is_full: bool = False
    is_exhausted: bool = False

    @property
    def is_hungry(self) -> bool:
        """Whether more rows should be read for it."""
        return not self.is_full and not self.is_exhausted


class Left(NamedTuple):
    """A row that was met and not taken; a tuple, as there can be millions."""

    example_id: str
    rank: int
    gap: float
    rule: str
    why: str


@dataclass
class Walk:
    """What was taken, what was left out and why, and the gaps on both sides of the cut."""

    taken: list[Row] = field(default_factory=list)
    left_out: list[Left] = field(default_factory=list)
    cut: tuple[float, float] | None = None


def walk(candidates: Candidates, recipe: Recipe, rules: Sequence[Sieve], wanted: int) -> Walk:
    """Take rows, best first, until `wanted` (rows, or answer tokens) is met or nothing is left.

    Every stratum has its share of the budget; what one can't use is shared out again among the
    others.
    """
    found = candidates.strata(recipe)
    strata = [Stratum(number, rows, tokens / max(1, rows)) for number, rows, tokens in found]
    done = Walk()
    left = wanted
    while left > 0 and strata:
        allot(strata, left, recipe)
        before = left
        while hungry := [stratum for stratum in strata if stratum.is_hungry]:
            left -= _read(candidates, recipe, rules, hungry, done)
        if left == before:
            break
        strata = [stratum for stratum in strata if not stratum.is_exhausted]
    return done


def allot(strata: Sequence[Stratum], amount: int, recipe: Recipe) -> None:
    """Share out a budget evenly, or by the strata's rows; what doesn't divide goes to the best."""
    weights = [1] * len(strata)
    if recipe.length_shares == "proportional":
        weights = [stratum.rows for stratum in strata]
    total = sum(weights) or 1
    shares = [amount * weight // total for weight in weights]
    order = sorted(range(len(strata)), key=lambda at: (-(amount * weights[at] % total), at))
    for at in order[: amount - sum(shares)]:
        shares[at] += 1
    for stratum, share in zip(strata, shares, strict=True):
        stratum.left, stratum.is_full = share, share == 0


def _read(
    candidates: Candidates,
    recipe: Recipe,
    rules: Sequence[Sieve],
    hungry: Sequence[Stratum],
    done: Walk,
) -> int:
    """Read on in these strata once; gives back how much of the budget was used."""
    by_number = {stratum.number: stratum for stratum in hungry}
    asked = [(each.number, each.after, _limit(each, recipe)) for each in hungry]
    numbers = candidates.numbers(asked)
    rows = _rows(candidates, rules, numbers)
    used, is_open = 0, len(hungry)
    for row in rows:
        stratum = by_number[row.stratum]
        if stratum.is_full:
            continue
        why = _why(row, rules)
        cost = row.tokens if recipe.tokens is not None else 1
        if why is None and cost > stratum.left:
            stratum.is_full = True
            rows = chain([row], rows)
        else:
            used += _note(row, why, cost, stratum, done, rules)
        is_open -= stratum.is_full
        if not is_open:
            break
    read = Counter(numbers["stratum"].to_pylist())
    for stratum, (number, _, limit) in zip(hungry, asked, strict=True):
        stratum.is_exhausted = not stratum.is_full and read[number] < limit
    if recipe.strategy == "gap" and not recipe.balance and not recipe.length_bins and done.taken:
        rest = next((row for row in rows if _why(row, rules) is None), None)
        done.cut = None if rest is None else (done.taken[-1].gap, rest.gap)
    return used


def _why(row: Row, rules: Sequence[Sieve]) -> tuple[str, str] | None:
    """The first rule that leaves a row out, and its reason."""
    for rule in rules:
        reason = rule.check(row)
        if reason is not None:
            return rule.name, reason
    return None


def _note(
    row: Row,
    why: tuple[str, str] | None,
    cost: int,
    stratum: Stratum,
    done: Walk,
    rules: Sequence[Sieve],
) -> int:
    """Take a row or write down why not; gives back what it cost."""
    stratum.after, stratum.seen = row.place, stratum.seen + 1
    if why is not None:
        done.left_out.append(Left(row.example_id, row.rank, row.gap, *why))
        return 0
    for each in rules:
        each.take(row)
    done.taken.append(row)
    stratum.taken, stratum.left = stratum.taken + 1, stratum.left - cost
    stratum.is_full = stratum.left <= 0
    return cost


def _limit(stratum: Stratum, recipe: Recipe) -> int:
    """How many rows to read for what is left of a share, by how many passed so far."""
    wanted: float = stratum.left
    if recipe.tokens is not None:
        wanted /= max(1.0, stratum.mean_tokens)
    passing = (stratum.taken + 8) / (stratum.seen + 10)
    return min(MOST, int(wanted / passing) + SPARE)


def _rows(candidates: Candidates, rules: Sequence[Sieve], table: pa.Table) -> Iterator[Row]:
    """The rows of a table of numbers with their texts, prepared in blocks."""
    needed = table["example_id"]
    refusals = next((rule for rule in rules if isinstance(rule, Refusals)), None)
    if refusals is not None and not refusals.reads_text:
        needed = needed.filter(refusals.passing(table["is_refusal"]))
    texts = candidates.texts(needed.to_pylist()) if len(needed) else None
    found = {} if texts is None else {key.as_py(): at for at, key in enumerate(texts["example_id"])}
    for start in range(0, table.num_rows, BLOCK):
        block = table.slice(start, BLOCK).to_pylist()
        places = [found.get(each["example_id"]) for each in block]
        known = [place for place in places if place is not None]
        there = iter([] if texts is None else texts.take(known).to_pylist())
        rows = [
            _row(each, None if place is None else next(there))
            for each, place in zip(block, places, strict=True)
        ]
        for rule in rules:
            rule.prepare(rows)
        yield from rows


def _row(numbers: dict[str, Any], texts: dict[str, Any] | None) -> Row:
    # A row that is left out by its numbers alone comes without texts.
    texts = texts or {"source": "", "messages": [], "meta": None}
    return Row(
        **numbers,
        messages=texts["messages"],
        source=texts["source"],
        meta=_meta(texts["meta"]),
    )


def _meta(text: str | None) -> dict[str, Any]:
    """A row's other columns; none where the text of somebody else's part is no JSON object."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
