"""The charts, in Altair: each is named, as wide as its place, and coloured by look.py alone.

Datasets are named, not carried (`data`): charts that are brushed together share one. Every chart
of the section on gaps counts only what the parameter `keep` keeps: the page sets it from the
brushes (page/report.js), so that one brush filters all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.report.charts.counts import composition, coverage, coverage_rows
from curate.report.charts.ensemble import agreement, epsilon, leave_one_out
from curate.report.charts.frame import KINDS, Drawing
from curate.report.charts.losses import cut_line, losses
from curate.report.charts.spread import brushed, depth, quantiles
from curate.report.lens import Row

if TYPE_CHECKING:
    from curate.report.findings import Findings

__all__ = ["TITLES", "charts", "cut_line", "data"]

TITLES = {
    "coverage": "Examples scored, skipped and missing, per model",
    "gaps": "Gap",
    "lengths": "Length",
    "sources": "Source",
    "refusals": "Refusal",
    "gap_by_source": "The gap by source",
    "gap_by_length": "The gap by length",
    "refusals_by_depth": "Refusals in the ranking",
    "losses": "Aligned against misaligned",
    "agreement": "Rank correlation of the gaps",
    "leave_one_out": "Leaving one model out",
    "epsilon": "Other values of ε",
    "composition": "Where the rows come from",
}


def charts(found: Findings) -> dict[str, Drawing]:
    """All charts that these findings give, by name, in the page's order."""
    made: dict[str, Drawing] = {}
    if any(row["skipped"] or row["missing"] > 0 for row in found.models):
        made["coverage"] = coverage(found)
    if ranking := found.ranking:
        made |= brushed(ranking)
        made["gap_by_source"] = quantiles("quantiles_by_source", ranking.by_source, None)
        made["gap_by_length"] = quantiles("quantiles_by_length", ranking.by_length, "answer tokens")
        made["refusals_by_depth"] = depth(ranking.span["ranked"])
        made["losses"] = losses(found.recipe, ranking)
        if ranking.agreement:
            made["agreement"] = agreement(ranking.agreement)
        if len(ranking.leave_one_out) > 1:
            made["leave_one_out"] = leave_one_out(ranking.leave_one_out)
        if ranking.epsilon_sweep:
            made["epsilon"] = epsilon(found.recipe.epsilon)
        made["composition"] = composition(ranking.composition)
    return made


def data(found: Findings) -> dict[str, list[Row]]:
    """The rows that the charts name. Texts stay out: a chart never reads them."""
    named: dict[str, list[Row]] = {"coverage": coverage_rows(found)}
    if ranking := found.ranking:
        numbers = ("source", "refusal", "aligned", "misaligned", "gap", "rank", "tokens", "length")
        named |= {
            "cells": ranking.cells,
            "quantiles_by_source": ranking.by_source,
            "quantiles_by_length": ranking.by_length,
            "depth": ranking.depth,
            "points": [
                {name: row[name] for name in numbers}
                | {"i": i, "kind": KINDS[2] if row["is_taken"] else row["refusal"]}
                for i, row in enumerate(ranking.points)
            ],
            "agreement": ranking.agreement,
            "leave_one_out": ranking.leave_one_out,
            "epsilon": ranking.epsilon_sweep,
            "composition": ranking.composition,
        }
    return named
