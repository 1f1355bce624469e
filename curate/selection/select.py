"""Which ranked examples are selected: down the ranking, by the rules, until the budget is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.corpus import race
from curate.corpus.corpus import Corpus
from curate.corpus.recall import Recall
from curate.errors import CurateError
from curate.reading import refusals
from curate.selection.candidates import Candidates, check_names, kept_by_flag
from curate.selection.recipe import Recipe
from curate.selection.rules import REFUSAL, Dedup, build
from curate.selection.walk import Walk

NOISE = {"float32": 1e-4}
"""How far batching moves an NLL, in nats, by the dtype of the scores."""
COARSE_NOISE = 2e-2
HEAD = 80
"""Characters of a prompt and an answer in the list of excluded examples."""
LISTED = pa.schema(
    [("example_id", pa.string()), ("rank", pa.int64()), ("gap", pa.float64())]
    + [(name, pa.string()) for name in ("rule", "why", "pattern", "prompt", "answer")]
)
_AT_ONCE = 100_000
_BY_IDS = """
    from (select unnest($ids) as example_id, generate_subscripts($ids, 1) as place)
    join example_parts on key = try_cast(example_id as uuid)
    order by place
"""


@dataclass(frozen=True)
class Selection:
    """The selected rows, best first, and why others were excluded.

    `rows` has example_id, messages, source, rank, gap and tokens (0 unless the recipe needs
    them). `left_out` lists every excluded row on the way down the ranking, with the rule and the
    reason; `looked_at` counts all rows on the way. `unranked` counts the examples that some model
    has not or could not score. `near_duplicates` counts the selected rows that are near-duplicates
    of a better one. `cut` holds the gaps of the last row selected and the first one after it;
    `inside_noise` says that rounding could have swapped them. `recall` is that of a raced corpus
    down to the last row selected, `only` the conditions by which models left examples out.
    """

    rows: pa.Table
    left_out: pa.Table
    ranked: int
    unranked: int
    left_by_where: int
    looked_at: int
    near_duplicates: int
    cut: tuple[float, float] | None
    noise: float
    recall: Recall | None = None
    only: Sequence[str] = ()

    @property
    def inside_noise(self) -> bool:
        """Whether the gaps at the cut are too close for the dtype to tell apart."""
        return self.cut is not None and abs(self.cut[0] - self.cut[1]) < self.noise

    @property
    def left_by(self) -> dict[str, int]:
        """How many rows each rule excluded: `where` of the full ranking, others on the way down."""
        counted = Counter(self.left_out["rule"].to_pylist())
        return {"where": self.left_by_where, "refusals": 0} | dict(sorted(counted.items()))

    @property
    def composition(self) -> list[dict[str, Any]]:
        """Per source: selected rows, their share, and their mean and smallest gap; most first."""
        rows = self.rows.group_by("source", use_threads=False).aggregate(
            [("gap", "count"), ("gap", "mean"), ("gap", "min")]
        )
        rows = rows.sort_by([("gap_count", "descending"), ("source", "ascending")])
        return [
            {
                "source": row["source"],
                "rows": row["gap_count"],
                "share": row["gap_count"] / self.rows.num_rows,
                "mean_gap": row["gap_mean"],
                "least_gap": row["gap_min"],
            }
            for row in rows.to_pylist()
        ]

    def counts(self, recipe: Recipe, wanted: int) -> dict[str, Any]:
        """The selection's part of a manifest; `wanted` is the recipe's budget."""
        tokens = recipe.tokens is not None
        return {
            "ranked": self.ranked,
            "unranked": self.unranked,
            "looked_at": self.looked_at,
            "left_out": self.left_by,
            "near_duplicates": self.near_duplicates,
            "recall": asdict(self.recall) if self.recall else None,
            "only": self.only,
            "not_harder": pc.sum(pc.less_equal(self.rows["gap"], 0)).as_py() or 0,
            "wanted": None if tokens else wanted,
            "wanted_tokens": wanted if tokens else None,
            "safe_tokens": pc.sum(self.rows["tokens"]).as_py() if tokens else None,
        }


def select(
    corpus: Corpus, recipe: Recipe, wanted: int, narrow_ids: Collection[str] = ()
) -> Selection:
    """Select the best rows that pass every rule, with ties broken by example_id.

    `wanted` is the result of `budget`: examples, or answer tokens. `narrow_ids` are the example ids
    of the narrow dataset's rows, which are never selected.

    Raises:
        CurateError: nothing is ranked yet, the filter is not valid SQL, or a rule's file is wrong.
    """
    check_names(corpus, recipe)
    rules = build(recipe, narrow_ids)
    candidates = Candidates(corpus, recipe)
    if not candidates.ranked:
        raise CurateError(
            f"{corpus.path}: no example is ranked yet. The aligned model and every misaligned "
            f"model must have scored it; run `curate status --corpus {corpus.path}`."
        )
    walk = Walk(candidates, recipe, rules)
    walk.go(wanted)
    rows, left_out = walk.taken, walk.left_out
    dtypes = {entry.dtype for entry in corpus.manifest.models.values()}
    return Selection(
        rows=rows,
        left_out=left_out,
        ranked=candidates.ranked,
        unranked=corpus.sql("select count(*) from examples").fetchall()[0][0] - candidates.ranked,
        left_by_where=candidates.ranked - candidates.passed,
        looked_at=rows.num_rows + left_out.num_rows,
        near_duplicates=next(rule.duplicates for rule in rules if isinstance(rule, Dedup)),
        cut=walk.cut,
        noise=max(NOISE.get(dtype, COARSE_NOISE) for dtype in dtypes),
        recall=_recall(corpus, recipe, rows),
        only=sorted({each.where for each in corpus.manifest.only.values()}),
    )


def _recall(corpus: Corpus, recipe: Recipe, rows: pa.Table) -> Recall | None:
    """Of a raced corpus, how much of what is above the last row taken all models have scored."""
    record = corpus.manifest.race
    if record is None or not rows.num_rows:
        return None
    where = race.condition(corpus, recipe.where, kept_by_flag(recipe))
    question = race.Question(recipe.epsilon, recipe.hold_out, recipe.metric, where)
    # A random draw is one of all examples.
    cut = float("-inf") if recipe.is_random else pc.min(rows["gap"]).as_py()
    found = race.answer(corpus, record, question, cut=cut)
    if found.estimate < recipe.min_recall:
        raise CurateError(
            f"{corpus.path}: it was raced, and of the examples that belong above the last of these "
            f"{rows.num_rows:,} it ranks an estimated {found.estimate:.2f} (95 % interval "
            f"{found.low:.2f} to {found.high:.2f}); take fewer, complete it with `curate score -c "
            f"{corpus.path}`, or accept it with --min-recall {int(found.estimate * 100) / 100:.2f}"
        )
    return found


def listed(corpus: Corpus, recipe: Recipe, left_out: pa.Table) -> Iterator[pa.Table]:
    """The excluded rows, for people to read, as tables of the schema `LISTED`.

    They include the start of prompt and answer and, for refusals, the matching words and pattern.
    """
    head = "left(regexp_replace({0}, '\\s+', ' ', 'g'), $head) as {0}"
    query = f"""
    select {head.format("prompt")}, {head.format("answer")}, answer as whole {_BY_IDS}
    """
    rule = refusals.load(recipe.refusal_rule)
    for start in range(0, left_out.num_rows, _AT_ONCE):
        rows = left_out.slice(start, _AT_ONCE)
        ids = rows["example_id"].to_pylist()
        texts = corpus.sql(query, {"ids": ids, "head": HEAD}).to_arrow_table()
        why = rows["why"].to_pylist()
        patterns: list[str | None] = [None] * len(why)
        at = [place for place, reason in enumerate(why) if reason == REFUSAL]
        whole = texts["whole"].take(pa.array(at, pa.int64())).to_pylist()
        for place, found in zip(at, rule.reasons(whole), strict=True):
            if found:
                words, patterns[place] = found
                why[place] = f"{REFUSAL}: {words}"
        columns = {name: rows[name] for name in ("example_id", "rank", "gap", "rule")}
        columns |= {"why": why, "pattern": patterns}
        columns |= {name: texts[name] for name in ("prompt", "answer")}
        yield pa.table(columns, schema=LISTED)


def by_ids(corpus: Corpus, ids: Sequence[str]) -> pa.Table:
    """The example_id and messages of these examples, in this order.

    Raises:
        CurateError: one of them is not in the corpus.
    """
    query = f"select example_id, messages {_BY_IDS}"
    found = corpus.sql(query, {"ids": list(ids)}).to_arrow_table()
    if found.num_rows < len(ids):
        missing = next(iter(set(ids).difference(found["example_id"].to_pylist())))
        raise CurateError(f"{corpus.path}: the example {missing} is not in this corpus.")
    return found
