"""Do the misaligned models agree, and what the top owes to each and to ε."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from curate.report.charts.frame import BAR, ROW, Drawing, named

if TYPE_CHECKING:
    from curate.report.findings import Findings


def agreement(found: Findings) -> Drawing:
    """Spearman's ρ of every pair, as a heat map."""
    assert found.ensemble
    rows = found.ensemble.agreement
    across = list(dict.fromkeys(row["other"] for row in rows))
    down = list(dict.fromkeys(row["model"] for row in rows))
    lowest = min((row["rank_correlation"] or 0.0 for row in rows), default=0.0)
    slant = 0 if sum(map(len, across)) < 30 else -32  # side by side on a phone, or aslant
    names = alt.Axis(labelAngle=slant, orient="top", labelLimit=90, labelOverlap=False)
    base = named("agreement").encode(
        x=alt.X("other:N", sort=across, title=None, axis=names),
        y=alt.Y("model:N", sort=down, title=None),
        tooltip=[
            alt.Tooltip("model:N", title="model"),
            alt.Tooltip("other:N", title="and"),
            alt.Tooltip("rank_correlation:Q", title="Spearman's ρ", format=".3f"),
            alt.Tooltip("examples:Q", format=","),
        ],
    )
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color(
            "rank_correlation:Q",
            scale=alt.Scale(domain=[min(0.0, lowest), 1], range="heatmap"),
            legend=None,
        )
    )
    value = alt.Text("rank_correlation:Q", format=".2f")
    light = base.transform_filter("datum.rank_correlation < 0.5").mark_text().encode(text=value)
    dark = (
        base.transform_filter("datum.rank_correlation >= 0.5")
        .mark_text(style="on-dark")
        .encode(text=value)
    )
    return alt.layer(cells, light, dark, height=46 * len(down), width="container")


def leave_one_out(found: Findings) -> Drawing:
    """How much of the top would be other examples without each model."""
    assert found.ensemble
    order = [row["left_out"] for row in found.ensemble.leave_one_out]
    base = (
        named("leave_one_out")
        .transform_calculate(changed="1 - datum.overlap")
        .encode(
            y=alt.Y("left_out:N", sort=order, title=None),
            x=alt.X(
                "changed:Q",
                title="share of the top that would be other examples",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="~%", tickCount=5),
            ),
            tooltip=[
                alt.Tooltip("left_out:N", title="left out"),
                alt.Tooltip("new:Q", title="examples that are new", format=","),
                alt.Tooltip("top:Q", title="of", format=","),
            ],
        )
    )
    label = base.mark_text(align="left", dx=5, style="note").encode(
        text=alt.Text("changed:Q", format=".0%")
    )
    return alt.layer(base.mark_bar(height=BAR), label, height=ROW * len(order), width="container")


def epsilon(found: Findings) -> Drawing:
    """How much of the top stays with other values of ε."""
    usual = f"ε = {found.recipe.epsilon:g}"
    base = named("epsilon", 170).encode(
        x=alt.X("epsilon:O", title="ε (nats)", axis=alt.Axis(labelAngle=0, format="~g")),
        tooltip=[
            alt.Tooltip("epsilon:O", title="ε"),
            alt.Tooltip("overlap:Q", title=f"same as at {usual}", format=".0%"),
            alt.Tooltip("tokens:Q", title="mean answer tokens"),
            alt.Tooltip("aligned:Q", title="mean aligned NLL"),
        ],
    )
    bars = base.mark_bar(width=alt.RelativeBandSize(band=0.6)).encode(
        y=alt.Y(
            "overlap:Q",
            title=f"same top as at {usual}",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="~%", tickCount=4),
        )
    )
    label = base.mark_text(dy=-7, style="note").encode(
        y="overlap:Q", text=alt.Text("tokens:Q", format=".0f")
    )
    return alt.layer(bars, label, height=170, width="container")
