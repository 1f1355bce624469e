"""Which ranked examples are taken: refusals, a filter, a budget. The gap itself is SQL's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from curate.corpus import Corpus, readable_errors
from curate.errors import CurateError
from curate.filters import check_condition

NOISE = {"float32": 1e-4}
"""How far batching moves an NLL, in nats, by the dtype of the scores (docs: DESIGN, numbers)."""
COARSE_NOISE = 2e-2


@dataclass(frozen=True)
class Recipe:
    """How a safe set is chosen. The defaults are Interleaving++ (arXiv 2508.06249).

    One budget is given: `top` examples, or `fraction`, a share of the narrow set's rows (0.05 is
    one safe row after every 20 narrow ones, 4.76 % of the mix). `where` is SQL over the columns
    of `gaps` and of `examples`. `strategy` `random` is plain Interleaving, drawn with `seed`.
    """

    top: int | None = None
    fraction: float | None = None
    into: str | None = None
    refusals: Literal["drop", "keep", "only"] = "drop"
    strategy: Literal["gap", "random"] = "gap"
    metric: str = "relative"
    epsilon: float = 1.0
    hold_out: tuple[str, ...] = ()
    where: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Selection:
    """The rows taken, best first, and how the others fell away.

    `rows` has example_id, messages, source, rank, gap. `cut` is the gap of the last row taken
    and of the first left out; `inside_noise` says that rounding could have swapped them.
    """

    rows: pa.Table
    ranked: int
    left_by_where: int
    left_by_refusals: int
    cut: tuple[float, float] | None
    noise: float

    @property
    def inside_noise(self) -> bool:
        """Whether the cut falls between gaps that the dtype can't tell apart."""
        return self.cut is not None and abs(self.cut[0] - self.cut[1]) < self.noise


def budget(recipe: Recipe, narrow_rows: int | None) -> int:
    """How many safe examples a recipe asks for.

    Raises:
        CurateError: no budget or two, a fraction outside (0, 1], or one without a narrow set.
    """
    if (recipe.top is None) == (recipe.fraction is None):
        raise CurateError("how many examples? give --top N, or --fraction F --into NARROW")
    if recipe.top is not None:
        if recipe.top < 1:
            raise CurateError(f"--top {recipe.top}: give at least 1")
        return recipe.top
    assert recipe.fraction is not None
    if not 0 < recipe.fraction <= 1:
        raise CurateError(f"--fraction {recipe.fraction}: give a share in (0, 1], like 0.05")
    if narrow_rows is None:
        raise CurateError("--fraction is a share of a narrow set: name it with --into NARROW")
    # Half up, not Python's half to even: 0.05 of 30 and of 50 are 2 and 3.
    return max(1, int(recipe.fraction * narrow_rows + 0.5))


def select(corpus: Corpus, recipe: Recipe, wanted: int) -> Selection:
    """Take the `wanted` best eligible examples, ties broken by example_id.

    Raises:
        CurateError: nothing is ranked yet, or the filter is not valid SQL.
    """
    if recipe.where is not None:
        check_condition(recipe.where)
    parameters: dict[str, object] = {
        "epsilon": recipe.epsilon,
        "hold_out": list(recipe.hold_out),
        "metric": recipe.metric,
    }
    with readable_errors():
        ranked, passed, eligible = corpus.sql(
            f"with {_pool(recipe)} select count(*), count(*) filter (passes), "
            "count(*) filter (passes and wanted) from pool",
            parameters,
        ).fetchall()[0]
    if not ranked:
        raise CurateError(
            f"{corpus.path}: no example is ranked yet: the aligned model and every misaligned "
            f"one must have scored it; see `curate status --corpus {corpus.path}`"
        )
    rows = corpus.sql(
        f"with {_pool(recipe)} select example_id, messages, source, rank, gap from pool "
        f"where passes and wanted order by {_order(recipe)}, example_id limit $wanted",
        # One row more than asked shows what the cut left out.
        parameters | {"wanted": wanted + 1},
    ).to_arrow_table()
    cut = None
    if rows.num_rows > wanted and recipe.strategy == "gap":
        cut = (rows["gap"][wanted - 1].as_py(), rows["gap"][wanted].as_py())
    return Selection(
        rows=rows.slice(0, wanted),
        ranked=ranked,
        left_by_where=ranked - passed,
        left_by_refusals=passed - eligible,
        cut=cut,
        noise=_noise(corpus),
    )


def by_ids(corpus: Corpus, ids: Sequence[str]) -> list[list[dict[str, str]]]:
    """The conversations of these examples, in this order.

    Raises:
        CurateError: the corpus doesn't hold one of them.
    """
    found = corpus.sql(
        "select example_id, messages from examples where list_contains($ids, example_id)",
        {"ids": list(ids)},
    ).to_arrow_table()
    messages = dict(
        zip(found["example_id"].to_pylist(), found["messages"].to_pylist(), strict=True)
    )
    missing = next((example_id for example_id in ids if example_id not in messages), None)
    if missing is not None:
        raise CurateError(f"{corpus.path}: does not hold the example {missing}")
    return [messages[example_id] for example_id in ids]


def _pool(recipe: Recipe) -> str:
    wanted = {"drop": "not is_refusal", "keep": "true", "only": "is_refusal"}[recipe.refusals]
    passes = f"coalesce(({recipe.where}\n), false)" if recipe.where else "true"
    return (
        f"pool as (select *, {passes} as passes, {wanted} as wanted from "
        "gaps(epsilon := $epsilon, hold_out := $hold_out, metric := $metric) "
        "join (select example_id, row, messages, n_bytes, meta from examples) "
        "using (example_id))"
    )


def _order(recipe: Recipe) -> str:
    # md5 and not DuckDB's own hash: the draw is the same in every version.
    return f"md5('{int(recipe.seed)}:' || example_id)" if recipe.strategy == "random" else "rank"


def _noise(corpus: Corpus) -> float:
    dtypes = {entry.dtype for entry in corpus.manifest.models.values() if entry.dtype}
    return max((NOISE.get(dtype, COARSE_NOISE) for dtype in dtypes), default=COARSE_NOISE)
