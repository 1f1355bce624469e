"""From runs to results: tables, plots and numbers over all runs that a folder holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.efficacy import measures, plots, rows, seen, tables
from bench.efficacy.intervals import Table
from bench.efficacy.measures import ABOUT, SAID, Changes, weights
from bench.efficacy.plan import Experiment
from curate.storage import parts

FILES = ("results.csv", "rows.parquet", "seen.csv")
"""Numbers, no texts."""


def write(folder: Path, experiment: Experiment, tell: Callable[[str], None]) -> None:
    """Write everything that the runs that are there give, whichever were asked for this time."""
    changes = measures.read(folder, experiment.runs())
    if not changes:
        tell("no run is there yet: no results")
        return
    found = by_name(changes)
    rows.write(folder / "rows.parquet", changes)
    _lines(folder / "results.csv", _values(found))
    safe = seen.read(folder, [change.run for change in found.values()])
    _lines(folder / "seen.csv", [asdict(each) for each in safe])
    real = experiment.sizes.says
    page = tables.real if real else tables.page
    parts.write_text(folder / "tables.md", page(found, safe))
    if not real:
        plots.write(found, folder / "plots")
    tell(f"{len(found)} runs: {', '.join(FILES)}, tables.md and plots/ in {folder}")


def by_name(changes: Iterable[Changes]) -> Table:
    """Runs by domain, arm and seed."""
    return {(each.run.domain, each.run.arm.name, each.run.seed): each for each in changes}


def _values(found: Table) -> list[dict[str, object]]:
    """A row for each run and measure."""
    return [
        {"domain": domain, "arm": arm, "seed": seed, "measure": measure}
        | {"value": round(changes.measure(measure), 6)}
        for (domain, arm, seed), changes in sorted(found.items())
        for measure in (*ABOUT, *SAID)
        if set(weights(measure, domain)) <= set(changes.by_set)
    ]


def _lines(path: Path, found: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    if found:
        writer = csv.DictWriter(text, found[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    parts.write_text(path, text.getvalue())
