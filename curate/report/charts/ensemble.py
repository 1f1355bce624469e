"""Do the misaligned models agree, and what the top owes to each and to ε."""

from __future__ import annotations

import altair as alt

from curate.report.charts.frame import BAR, PERCENT, ROW, Drawing, list_of, named, tip
from curate.report.lens import Row

_ALL = alt.Scale(domain=[0, 1])


def agreement(rows: list[Row]) -> Drawing:
    """Spearman's ρ of every pair, as a heat map."""
    across = list(dict.fromkeys(row["other"] for row in rows))
    down = list(dict.fromkeys(row["model"] for row in rows))
    lowest = min(row["rank_correlation"] or 0.0 for row in rows)
    slant = 0 if sum(map(len, across)) < 30 else -32  # side by side on a phone, or aslant
    names = alt.Axis(labelAngle=slant, orient="top", labelLimit=90, labelOverlap=False)
    base = named("agreement").encode(
        x=alt.X("other:N", sort=across, title=None, axis=names),
        y=alt.Y("model:N", sort=down, title=None),
        tooltip=[
            tip("model:N", "model"),
            tip("other:N", "and"),
            tip("rank_correlation:Q", "Spearman's ρ", ".3f"),
            tip("examples:Q", "examples", ","),
        ],
    )
    colours = alt.Scale(domain=[min(0.0, lowest), 1], range="heatmap")
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("rank_correlation:Q", scale=colours, legend=None)
    )
    text = base.encode(text=alt.Text("rank_correlation:Q", format=".2f"))
    light = text.transform_filter("datum.rank_correlation < 0.5").mark_text()
    dark = text.transform_filter("datum.rank_correlation >= 0.5").mark_text(style="on-dark")
    return alt.layer(cells, light, dark, height=46 * len(down), width="container")


def leave_one_out(rows: list[Row]) -> Drawing:
    """How much of the top would be other examples without each model."""
    base = (
        named("leave_one_out")
        .transform_calculate(changed="1 - datum.overlap")
        .encode(
            y=list_of(rows, "left_out"),
            x=alt.X(
                "changed:Q",
                title="share of the top that would be other examples",
                scale=_ALL,
                axis=PERCENT,
            ),
            tooltip=[
                tip("left_out:N", "left out"),
                tip("new:Q", "examples that are new", ","),
                tip("top:Q", "of", ","),
            ],
        )
    )
    label = base.mark_text(align="left", dx=5, style="note").encode(
        text=alt.Text("changed:Q", format=".0%")
    )
    return alt.layer(base.mark_bar(height=BAR), label, height=ROW * len(rows), width="container")


def epsilon(usual: float) -> Drawing:
    """How much of the top stays with other values of ε."""
    base = named("epsilon", 170).encode(
        x=alt.X("epsilon:O", title="ε (nats)", axis=alt.Axis(labelAngle=0, format="~g")),
        tooltip=[
            tip("epsilon:O", "ε"),
            tip("overlap:Q", f"same as at ε = {usual:g}", ".0%"),
            tip("tokens:Q", "mean answer tokens"),
            tip("aligned:Q", "mean aligned NLL"),
        ],
    )
    bars = base.mark_bar(width=alt.RelativeBandSize(band=0.6)).encode(
        y=alt.Y("overlap:Q", title=f"same top as at ε = {usual:g}", scale=_ALL, axis=PERCENT)
    )
    label = base.mark_text(dy=-7, style="note").encode(
        y="overlap:Q", text=alt.Text("tokens:Q", format=".0f")
    )
    return alt.layer(bars, label, height=170, width="container")
