"""From runs to results: results.csv, seen.csv, tables.md and the plots, over what is complete."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import curate
from bench.efficacy import measures, plots, tables
from bench.efficacy.intervals import Table
from bench.efficacy.measures import ABOUT
from bench.efficacy.plan import Run
from curate import parts

_SEEN = """
select source, count(*) as rows, count(*) filter (is_refusal) as refusals,
       avg(n_tokens) as tokens
from (select unnest($ids) as example_id)
join examples using (example_id)
join (select example_id, n_tokens from scores where model = 'aligned') using (example_id)
group by source order by source
"""


def write(folder: Path, runs: Sequence[Run], tell: Callable[[str], None]) -> None:
    """Write everything that the runs that are there give."""
    found = {(c.run.domain, c.run.arm.name, c.run.seed): c for c in measures.read(folder, runs)}
    if not found:
        tell("no run is there yet: no results")
        return
    _rows(folder / "results.csv", _values(found))
    _rows(folder / "seen.csv", _seen(folder, [change.run for change in found.values()]))
    parts.write_text(folder / "tables.md", tables.page(found))
    plots.write(found, folder / "plots")
    tell(
        f"{len(found)} of {len(runs)} runs: results.csv, seen.csv, tables.md and plots/ in {folder}"
    )


def _values(found: Table) -> list[dict[str, object]]:
    """A row for each run and measure."""
    return [
        {"domain": domain, "arm": arm, "seed": seed, "measure": measure}
        | {"value": round(changes.measure(measure), 6)}
        for (domain, arm, seed), changes in sorted(found.items())
        for measure in ABOUT
    ]


def _seen(folder: Path, runs: Sequence[Run]) -> list[dict[str, object]]:
    """Which safe rows each run trained on, by source."""
    corpus, lines = curate.open(folder / "corpus"), []
    for run in sorted(runs, key=lambda run: run.path):
        record = json.loads((folder / "runs" / f"{run.path}.json").read_text(encoding="utf-8"))
        rows = corpus.sql(_SEEN, {"ids": record["safe seen"]}).fetchall()
        for source, count, refusals, tokens in rows:
            lines.append(
                {"domain": run.domain, "arm": run.arm.name, "seed": run.seed}
                | {"source": Path(source).stem, "rows": count, "refusals": refusals}
                | {"mean answer tokens": round(tokens, 1)}
            )
    return lines


def _rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    parts.write_text(path, text.getvalue())
