"""From runs to results: results.csv, seen.csv, tables.md and the plots, over what is complete."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.efficacy import measures, plots, seen, tables
from bench.efficacy.intervals import Table
from bench.efficacy.measures import ABOUT
from bench.efficacy.plan import Run
from curate.storage import parts


def write(folder: Path, runs: Sequence[Run], tell: Callable[[str], None]) -> None:
    """Write everything that the runs that are there give."""
    found = {(c.run.domain, c.run.arm.name, c.run.seed): c for c in measures.read(folder, runs)}
    if not found:
        tell("no run is there yet: no results")
        return
    _rows(folder / "results.csv", _values(found))
    safe = seen.read(folder, [change.run for change in found.values()])
    _rows(folder / "seen.csv", [asdict(each) for each in safe])
    parts.write_text(folder / "tables.md", tables.page(found, safe))
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


def _rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    parts.write_text(path, text.getvalue())
