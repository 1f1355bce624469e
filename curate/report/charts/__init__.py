"""The charts, in Altair: each is named, as wide as its place, and coloured by look.py alone.

Datasets are named, not carried (`DATA`): charts that are brushed together share one. Every chart
of the section on gaps counts only what the parameter `keep` keeps: the page sets it from the
brushes (page/report.js), so that one brush filters all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.report.charts.counts import composition, coverage, coverage_rows
from curate.report.charts.ensemble import agreement, epsilon, leave_one_out
from curate.report.charts.frame import KINDS, Drawing
from curate.report.charts.losses import cut_line, losses, points
from curate.report.charts.spread import brushed, depth, quantiles
from curate.report.lens import Row, only

if TYPE_CHECKING:
    from curate.report.findings import Findings

__all__ = ["charts", "cut_line", "data", "points"]


def charts(found: Findings) -> dict[str, Drawing]:
    """All charts that these findings give, by name, in the page's order."""
    made: dict[str, Drawing] = {}
    if any(row["skipped"] or row["missing"] > 0 for row in found.models):
        made["coverage"] = coverage(found)
    if found.spread and found.taken and found.ensemble:
        made |= brushed(found.spread)
        made["gap_by_source"] = quantiles("quantiles_by_source", found.spread.by_source, None)
        made["gap_by_length"] = quantiles(
            "quantiles_by_length", found.spread.by_length, "answer tokens"
        )
        made["refusals_by_depth"] = depth(found.spread.span["ranked"])
        made["losses"] = losses(found)
        if found.ensemble.agreement:
            made["agreement"] = agreement(found)
        if len(found.ensemble.leave_one_out) > 1:
            made["leave_one_out"] = leave_one_out(found)
        if found.ensemble.epsilon_sweep:
            made["epsilon"] = epsilon(found)
        made["composition"] = composition(found)
    return made


def data(found: Findings) -> dict[str, list[Row]]:
    """The rows that the charts name. Texts stay out: a chart never reads them."""
    named: dict[str, list[Row]] = {"coverage": coverage_rows(found)}
    if found.spread and found.taken and found.ensemble:
        taken = {row["id"] for row in found.taken.rows}
        numbers = ("source", "refusal", "aligned", "misaligned", "gap", "rank", "tokens", "length")
        named |= {
            "cells": found.spread.cells,
            "quantiles_by_source": found.spread.by_source,
            "quantiles_by_length": found.spread.by_length,
            "depth": found.spread.depth,
            "points": [
                only(row, *numbers)
                | {"i": i, "kind": KINDS[2] if row["id"] in taken else row["refusal"]}
                for i, row in enumerate(points(found))
            ],
            "agreement": found.ensemble.agreement,
            "leave_one_out": found.ensemble.leave_one_out,
            "epsilon": found.ensemble.epsilon_sweep,
            "composition": found.taken.by_source,
        }
    return named
