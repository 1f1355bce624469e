"""Which ranked examples are taken: down the ranking, through the rules, until the budget is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.selection.candidates import Candidates, check_names
from curate.selection.recipe import Recipe
from curate.selection.rules import Similar, build
from curate.selection.walk import walk
from curate.storage.schema import MESSAGES

NOISE = {"float32": 1e-4}
"""How far batching moves an NLL, in nats, by the dtype of the scores (docs: DESIGN, numbers)."""
COARSE_NOISE = 2e-2

ROWS = pa.schema(
    [
        ("example_id", pa.string()),
        ("messages", MESSAGES),
        ("source", pa.string()),
        ("rank", pa.int64()),
        ("gap", pa.float64()),
        ("tokens", pa.int64()),
    ]
)
LEFT_OUT = pa.schema(
    [
        ("example_id", pa.string()),
        ("rank", pa.int64()),
        ("gap", pa.float64()),
        ("rule", pa.string()),
        ("why", pa.string()),
    ]
)


@dataclass(frozen=True)
class Selection:
    """The rows taken, best first, and what became of the others.

    `rows` has example_id, messages, source, rank, gap and tokens (0 unless the recipe needs
    them). `left_out` lists every row that was met on the way down the ranking and not taken,
    with the rule and why; `looked_at` counts all that were met. `unranked` counts the examples
    that some model has not scored, could not score, or that don't compare. `near_copies` counts
    the rows taken that are near-copies of a better one. `cut` is the gap of the last row taken
    and of the first left out; `inside_noise` says that rounding could have swapped them.
    """

    rows: pa.Table
    left_out: pa.Table
    ranked: int
    unranked: int
    left_by_where: int
    looked_at: int
    near_copies: int
    cut: tuple[float, float] | None
    noise: float

    @property
    def inside_noise(self) -> bool:
        """Whether the cut falls between gaps that the dtype can't tell apart."""
        return self.cut is not None and abs(self.cut[0] - self.cut[1]) < self.noise

    @property
    def left_by(self) -> dict[str, int]:
        """How many rows each rule left out; `where` over the whole ranking, others on the way."""
        counted = Counter(self.left_out["rule"].to_pylist())
        return {"where": self.left_by_where, "refusals": 0} | dict(sorted(counted.items()))

    def counts(self, recipe: Recipe, wanted: int) -> dict[str, Any]:
        """What a manifest says of the selection; `wanted` is what the recipe asked for."""
        tokens = recipe.tokens is not None
        return {
            "ranked": self.ranked,
            "unranked": self.unranked,
            "looked_at": self.looked_at,
            "left_out": self.left_by,
            "near_copies": self.near_copies,
            "wanted": None if tokens else wanted,
            "wanted_tokens": wanted if tokens else None,
            "safe_tokens": sum(self.rows["tokens"].to_pylist()) if tokens else None,
        }


def select(
    corpus: Corpus, recipe: Recipe, wanted: int, narrow_ids: Collection[str] = ()
) -> Selection:
    """Take the best rows that every rule lets pass, ties broken by example_id.

    `wanted` is what `budget` gives: examples, or answer tokens. `narrow_ids` are the example ids
    of the narrow set's rows, which are not taken again.

    Raises:
        CurateError: nothing is ranked yet, the filter is not valid SQL, or a rule's file is wrong.
    """
    check_names(corpus, recipe)
    rules = build(recipe, narrow_ids)
    candidates = Candidates(corpus, recipe)
    if not candidates.ranked:
        raise CurateError(
            f"{corpus.path}: no example is ranked yet: the aligned model and every misaligned "
            f"one must have scored it; see `curate status --corpus {corpus.path}`"
        )
    walked = walk(candidates, recipe, rules, wanted)
    copies = next(rule.copies for rule in rules if isinstance(rule, Similar))
    return Selection(
        rows=_table(sorted(walked.taken, key=lambda row: row.place), ROWS),
        left_out=_table(walked.left_out, LEFT_OUT),
        ranked=candidates.ranked,
        unranked=corpus.sql("select count(*) from examples").fetchall()[0][0] - candidates.ranked,
        left_by_where=candidates.ranked - candidates.passed,
        looked_at=len(walked.taken) + len(walked.left_out),
        near_copies=copies,
        cut=walked.cut,
        noise=_noise(corpus),
    )


def by_ids(corpus: Corpus, ids: Sequence[str]) -> list[list[dict[str, str]]]:
    """The conversations of these examples, in this order.

    Raises:
        CurateError: the corpus doesn't hold one of them.
    """
    found = corpus.sql(
        "select hex_id(key) as example_id, messages from example_parts "
        "where key in (select try_cast(unnest($ids) as uuid))",
        {"ids": list(ids)},
    ).to_arrow_table()
    messages = dict(
        zip(found["example_id"].to_pylist(), found["messages"].to_pylist(), strict=True)
    )
    missing = next((example_id for example_id in ids if example_id not in messages), None)
    if missing is not None:
        raise CurateError(f"{corpus.path}: does not hold the example {missing}")
    return [messages[example_id] for example_id in ids]


def _table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Attributes of objects as the columns of a table."""
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _noise(corpus: Corpus) -> float:
    dtypes = {entry.dtype for entry in corpus.manifest.models.values() if entry.dtype}
    return max((NOISE.get(dtype, COARSE_NOISE) for dtype in dtypes), default=COARSE_NOISE)
