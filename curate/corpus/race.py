"""A raced corpus: which examples lack scores, and what recall the audit sample gives a question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.corpus.corpus import UNSKIPPED, Corpus, has_ensemble
from curate.corpus.recall import Audit, Floats, Group, Recall, binned, recall
from curate.errors import CurateError
from curate.storage import parts
from curate.storage.manifest import Race
from curate.system.sql import readable_errors


@dataclass(frozen=True)
class Question:
    """What is ranked: the arguments of `ranks`, and a SQL condition on the examples."""

    epsilon: float = 1.0
    hold_out: tuple[str, ...] = ()
    metric: str = "relative"
    where: str = "true"


@dataclass(frozen=True)
class Field:
    """The examples that no model has skipped, in a random order given by a seed.

    `values` [columns, examples] holds the gaps of each of the misaligned `models` alone, followed
    by what helps to predict the final gap: the aligned model's loss, the logarithm of the answer's
    length in tokens and, if there is a proxy corpus, the gap there; NaN where a value isn't known.
    `ensemble` lists the indexes of the models that are not held out. `asked` [examples] says which
    examples meet the question's condition.
    """

    ids: pa.Array
    models: list[str]
    ensemble: list[int]
    values: Floats
    asked: NDArray[np.bool_]

    @property
    def facts(self) -> list[int]:
        """The columns after those of the models."""
        return list(range(len(self.models), len(self.values)))

    @property
    def proxy(self) -> list[int]:
        """The column that is known before anything is scored."""
        return self.facts[2:]

    @property
    def final(self) -> Floats:
        """The ensemble's gaps [examples], NaN where a score is missing."""
        return np.asarray(self.values[self.ensemble].mean(axis=0))

    def audit(self, count: int) -> Audit:
        """The first `count` examples, without those that some model has not scored."""
        final = self.final[:count]
        whole = np.isfinite(self.values[:, :count]).all(axis=0)
        return Audit(self.values[:, :count][:, whole], final[whole])

    def left(self, audit: Audit, among: NDArray[np.bool_], top: float) -> list[Group]:
        """Those `among` the examples that lack scores, grouped by what is known of them.

        `top` is the share of the examples that is wanted.
        """
        lacking = among & ~np.isfinite(self.final)
        has = np.isfinite(self.values)
        pattern = (1 << np.arange(len(has))) @ has
        found = []
        for each in np.unique(pattern[lacking]):
            places = [int(place) for place in range(len(has)) if int(each) >> place & 1]
            values = self.values[places][:, lacking & (pattern == each)]
            found.append(binned(places, values, audit, top))
        return found


@readable_errors()  # a damaged part may be met late
def field(corpus: Corpus, seed: int, question: Question = Question()) -> Field:
    """Read the gaps of every model alone, and which models are in the ensemble of a question."""
    values: dict[str, object] = {
        "epsilon": question.epsilon,
        "metric": question.metric,
        "seed": str(seed),
    }
    models = sorted(corpus.manifest.misaligned)
    cursor = corpus.connection.cursor()
    tables = _ROWS.format("$epsilon", "$metric")
    query = _GAPS.format(where=question.where, rows=tables, unskipped=UNSKIPPED)
    rows = cursor.sql(query, params=values).to_arrow_table()
    ids = rows["example_id"].combine_chunks()
    flat = rows["gaps"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    gaps = flat.astype(float).reshape(len(ids), len(models)).T
    facts = [rows[name].to_numpy().astype(float) for name in ("aligned_nll", "length")]
    if corpus.manifest.race and corpus.manifest.race.proxy:
        proxy = pq.read_table(parts.list_parts(corpus.path / PROXY)[-1])
        places = pc.index_in(ids, proxy["example_id"].combine_chunks())
        facts.append(proxy["gap"].take(places).to_numpy())
    ensemble = [place for place, name in enumerate(models) if name not in question.hold_out]
    asked = rows["asked"].combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    return Field(ids, models, ensemble, np.vstack([gaps, *facts]), asked)


def proxy_gaps(folder: str) -> pa.Table:
    """A proxy corpus's examples, as example_id and gap; the gap of unranked ones is null.

    Raises:
        CurateError: it isn't a corpus, or ranks nothing.
    """
    proxy = Corpus(Path(folder))
    if has_ensemble(proxy):
        with readable_errors():
            found = proxy.sql(_PROXY).to_arrow_table()
        if found["gap"].null_count < len(found):
            return found
    raise CurateError(
        f"{folder}: ranks nothing, so it can't be a proxy. Score it under an aligned and a "
        "misaligned model first."
    )


def take_proxy(corpus: Path, proxy: str, ids: pa.Array) -> None:
    """Copy the gaps of a proxy into the folder `proxy` of a corpus, for all decisions of a race.

    Raises:
        CurateError: the proxy lacks some of the examples, or as in `proxy_gaps`.
    """
    gaps = proxy_gaps(proxy)
    if lacking := len(ids) - pc.sum(pc.is_in(ids, gaps["example_id"])).as_py():
        raise CurateError(
            f"--proxy {proxy}: lacks {lacking:,} of the {len(ids):,} examples. Read the same "
            "sources into it, and score them under its models."
        )
    for old in parts.list_parts(corpus / PROXY):
        parts.remove_part(old)
    parts.write_part(corpus / PROXY, gaps)


def answer(
    corpus: Corpus,
    record: Race,
    question: Question = Question(),
    *,
    top: float | None = None,
    cut: float | None = None,
) -> Recall:
    """The recall of the best `top` examples of a question, or of all from the gap `cut` up.

    Raises:
        CurateError: the audit sample is too small, or the condition is wrong.
    """
    found = field(corpus, record.seed, question)
    audit = found.audit(record.audit)
    known = found.final[found.asked & np.isfinite(found.final)]
    share = (top if top is not None else float((known >= (cut or 0.0)).sum())) / max(
        found.asked.sum(), 1
    )
    groups = found.left(audit, found.asked, share) if len(audit.final) >= LEAST else []
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


PROXY = "proxy"
"""The folder in a corpus with the gaps of a race's proxy."""
_PROXY = """
select hex_id(key) as example_id, gap from example_parts left join ranks using (key)
"""
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
    aligned_nll,
    ln(n_tokens) as length,
    {where} as asked
{rows}
{unskipped}
"""
