"""A raced corpus: which examples lack scores, and what recall the audit sample gives a question."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.corpus.corpus import Corpus
from curate.corpus.recall import Audit, Floats, Group, Recall, binned, recall
from curate.errors import CurateError
from curate.storage.manifest import Race
from curate.system.sql import readable_errors


@dataclass(frozen=True)
class Question:
    """What is ranked: the arguments of `ranks`, and SQL that leaves some of the examples."""

    epsilon: float = 1.0
    hold_out: tuple[str, ...] = ()
    metric: str = "relative"
    where: str = "true"


@dataclass(frozen=True)
class Field:
    """The examples that no model has skipped, in the random order of a seed.

    `gaps` are those of each of the misaligned `models` alone [models, examples], NaN without a
    score. `ensemble` are the places of the models that are not held out. `asked` says for which
    examples a question's condition holds [examples].
    """

    ids: pa.Array
    models: list[str]
    ensemble: list[int]
    gaps: Floats
    asked: NDArray[np.bool_]

    @property
    def final(self) -> Floats:
        """The ensemble's gaps [examples], NaN where a score is missing."""
        return np.asarray(self.gaps[self.ensemble].mean(axis=0))

    def audit(self, count: int) -> Audit:
        """The first `count` examples, of them those that all models have scored."""
        final = self.final[:count]
        whole = np.isfinite(final) & np.isfinite(self.gaps[:, :count]).all(axis=0)
        return Audit(self.gaps[:, :count][:, whole], final[whole])

    def left(self, audit: Audit, among: NDArray[np.bool_]) -> list[Group]:
        """Those `among` the examples that lack scores, grouped by the models that they have."""
        lacking = among & ~np.isfinite(self.final)
        has = np.isfinite(self.gaps)
        pattern = (1 << np.arange(len(has))) @ has
        found = []
        for each in np.unique(pattern[lacking]):
            places = [int(place) for place in range(len(has)) if int(each) >> place & 1]
            found.append(binned(places, self.gaps[places][:, lacking & (pattern == each)], audit))
        return found


@readable_errors()  # a damaged part may be met late
def field(corpus: Corpus, seed: int, question: Question = Question()) -> Field:
    """Read the gaps of every model alone, and which models a question's ensemble has."""
    values: dict[str, object] = {
        "epsilon": question.epsilon,
        "metric": question.metric,
        "seed": str(seed),
    }
    models = sorted(n for n, e in corpus.manifest.models.items() if e.role == "misaligned")
    cursor = corpus.connection.cursor()
    tables = _ROWS.format("$epsilon", "$metric")
    query = _GAPS.format(where=question.where, rows=tables)
    rows = cursor.sql(query, params=values).to_arrow_table()
    ids = rows["example_id"].combine_chunks()
    flat = rows["gaps"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    gaps = flat.astype(float).reshape(len(ids), len(models)).T
    ensemble = [place for place, name in enumerate(models) if name not in question.hold_out]
    asked = rows["asked"].combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    return Field(ids, models, ensemble, gaps, asked)


def answer(
    corpus: Corpus,
    record: Race,
    question: Question = Question(),
    *,
    top: float | None = None,
    cut: float | None = None,
) -> Recall:
    """The recall that a question's best `top` examples have, or all from the gap `cut` on.

    Raises:
        CurateError: the audit sample is too small, or the condition is wrong.
    """
    found = field(corpus, record.seed, question)
    audit = found.audit(record.audit)
    groups = found.left(audit, found.asked) if len(audit.final) >= LEAST else []
    known = found.final[found.asked & np.isfinite(found.final)]
    if not groups and len(known) < found.asked.sum():
        raise CurateError(f"{corpus.path}: its race ended before the audit sample was scored")
    return recall(groups, audit, known, top, cut)


def condition(corpus: Corpus, where: str | None, also: str) -> str:
    """A filter for `Question`: `also`, and `where` unless it asks what only ranked rows have."""
    if where is None:
        return also
    asked, defaults = f"coalesce(({where}\n), false) and {also}", ("1.0", "'relative'")
    try:
        corpus.connection.cursor().sql(f"select {asked} as asked {_ROWS.format(*defaults)}")
    except duckdb.BinderException:
        return also
    return asked


LEAST = 200
"""A smaller audit sample says too little."""
_ROWS = """
from (select hex_id(key) as example_id, * from example_rows)
left join (
    select * exclude (is_refusal, n_bytes, gap, misaligned_nll) from weighed({}, [], {})
) using (key)
"""
_GAPS = """
select
    example_id,
    coalesce(
        list_transform(losses, lambda loss: gap_of(aligned_nll, loss / units, $epsilon, $metric)),
        (select list(null::double) from models where role = 'misaligned')
    ) as gaps,
    {where} as asked
{rows}
anti join (select example_id::uuid as key from skipped where model is not null) using (key)
order by md5($seed || ':' || example_id), key
"""
