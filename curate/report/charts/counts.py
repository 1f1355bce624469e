"""Bars that count: what was scored, and where the rows of an export come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from curate.report.charts.frame import BAR, COUNTS, PERCENT, ROW, Drawing, list_of, named, tip
from curate.report.lens import Row

if TYPE_CHECKING:
    from curate.report.findings import Findings


def coverage_rows(found: Findings) -> list[Row]:
    """How many examples each model has scored, skipped and lacks."""
    states = ("scored", "skipped", "missing")
    return [
        {"model": row["model"], "state": state, "n": max(row[state], 0), "place": place}
        for row in found.models
        for place, state in enumerate(states)
    ]


def coverage(found: Findings) -> Drawing:
    """A bar a model, of what it has scored, skipped and lacks."""
    # The category colours are for kinds of examples; the fourth is the warning.
    colours = alt.Scale(domain=["scored", "skipped", "-", "missing"], range="category")
    legend = alt.Legend(values=["scored", "skipped", "missing"])
    drawn: alt.Chart = (
        named("coverage", ROW * len(found.models))
        .mark_bar(height=BAR)
        .encode(
            y=list_of(found.models, "model"),
            x=alt.X("n:Q", title="examples", axis=COUNTS),
            color=alt.Color("state:N", title=None, scale=colours, legend=legend),
            order=alt.Order("place:O"),
            tooltip=["model:N", "state:N", tip("n:Q", "n", ",")],
        )
    )
    return drawn


def composition(rows: list[Row]) -> Drawing:
    """The share of each source among the rows taken, before its share of all that is ranked."""
    base = named("composition").encode(
        y=list_of(rows, "source"),
        tooltip=[
            "source:N",
            tip("taken:Q", "taken", ","),
            tip("share:Q", "of what is taken", ".1%"),
            tip("usual:Q", "of all ranked", ".1%"),
        ],
    )
    usual = base.mark_bar(style="ghost", height=18).encode(
        x=alt.X("usual:Q", title="share", axis=PERCENT)
    )
    share = base.mark_bar(style="taken", height=9).encode(x="share:Q")
    return alt.layer(usual, share, height=ROW * len(rows), width="container")
