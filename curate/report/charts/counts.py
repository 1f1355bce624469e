"""Bars that count: what was scored, and where the rows of an export come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from curate.report.charts.frame import BAR, ROW, SHORT, Drawing, named
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
    names = [row["model"] for row in found.models]
    drawn: alt.Chart = (
        named("coverage", ROW * len(names))
        .mark_bar(height=BAR)
        .encode(
            y=alt.Y("model:N", sort=names, title=None),
            x=alt.X("n:Q", title="examples", axis=alt.Axis(tickCount=4, labelExpr=SHORT)),
            color=alt.Color(
                "state:N",
                title=None,
                # The category colours are for kinds of examples; the fourth is the warning.
                scale=alt.Scale(domain=["scored", "skipped", "-", "missing"], range="category"),
                legend=alt.Legend(values=["scored", "skipped", "missing"]),
            ),
            order=alt.Order("place:O"),
            tooltip=["model:N", "state:N", alt.Tooltip("n:Q", format=",")],
        )
    )
    return drawn


def composition(found: Findings) -> Drawing:
    """The share of each source among the rows taken, before its share of all that is ranked."""
    assert found.taken
    order = [row["source"] for row in found.taken.by_source]
    base = named("composition").encode(
        y=alt.Y("source:N", sort=order, title=None),
        tooltip=[
            "source:N",
            alt.Tooltip("taken:Q", title="taken", format=","),
            alt.Tooltip("share:Q", title="of what is taken", format=".1%"),
            alt.Tooltip("usual:Q", title="of all ranked", format=".1%"),
        ],
    )
    usual = base.mark_bar(style="ghost", height=18).encode(
        x=alt.X("usual:Q", title="share", axis=alt.Axis(format="~%", tickCount=5))
    )
    share = base.mark_bar(style="taken", height=9).encode(x="share:Q")
    return alt.layer(usual, share, height=ROW * len(order), width="container")
