"""How the gaps lie: four charts that filter each other, quantiles, refusals by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from curate.report.charts.frame import (
    BAR,
    COUNTS,
    KEEP,
    PERCENT,
    ROW,
    SHORT,
    Drawing,
    list_of,
    named,
    tip,
)
from curate.report.lens import Row

if TYPE_CHECKING:
    from curate.report.findings import Ranking

# Of each band its first length alone: ten bands fit on a phone.
_FROM = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '–')[0]", labelOverlap=True)


def brushed(ranking: Ranking) -> dict[str, Drawing]:
    """The four charts that filter each other: all counted over every ranked example."""
    lengths = [row["name"] for row in ranking.by_length]
    up = alt.Y("sum(n):Q", title=None, axis=COUNTS)
    across = alt.X("sum(n):Q", title=None, axis=COUNTS)
    examples = tip("sum(n):Q", "examples", ",")
    gap = {
        "x": alt.X("gap:Q", bin="binned", title="gap", axis=alt.Axis(tickCount=8, format="~g")),
        "x2": "gap_end:Q",
        "y": up,
        "tooltip": [tip("gap:Q", "gap from", ".3~f"), tip("gap_end:Q", "to", ".3~f"), examples],
    }
    length = {
        "x": alt.X("length:N", sort=lengths, title="answer tokens, from", axis=_FROM),
        "y": up,
        "tooltip": [tip("length:N", "answer tokens"), examples],
    }
    source = {
        "y": alt.Y("source:N", sort=ranking.sources, title=None),
        "x": across,
        "tooltip": ["source:N", examples],
    }
    refusal = {
        "y": alt.Y("refusal:N", sort=["answer", "refusal"], title=None),
        "x": across,
        "tooltip": [tip("refusal:N", "kind"), examples],
    }
    brush = alt.selection_interval(name="pick", encodings=["x"])
    return {
        "gaps": _over(gap, 190, brush),
        "lengths": _over(length, 190, brush, width=alt.RelativeBandSize(band=0.86)),
        "sources": _over(source, ROW * len(ranking.sources), _click("source"), height=BAR),
        "refusals": _over(refusal, ROW * 2, _click("refusal"), height=BAR),
    }


def _click(name: str) -> alt.Parameter:
    # A tap adds and takes away: there is no shift key on a phone.
    return alt.selection_point(name="pick", fields=[name], toggle="true", clear=False)


def _over(encoding: dict[str, Any], tall: int, pick: alt.Parameter, **bar: Any) -> Drawing:
    """What is kept before all there is."""
    keep = alt.param(name="keep", value={})
    base = named("cells", tall).transform_calculate(gap_mid="(datum.gap + datum.gap_end) / 2")
    whole = base.mark_bar(style="ghost", **bar).encode(**encoding).add_params(pick)
    kept = base.transform_filter(KEEP).mark_bar(**bar).encode(**encoding)
    layers = alt.layer(whole, kept, height=tall, width="container")
    return layers.add_params(keep)


def quantiles(name: str, rows: list[Row], title: str | None) -> Drawing:
    """A line, a box and a stroke for each row of quantiles."""
    base = named(name).encode(
        y=list_of(rows, "name", title),
        tooltip=[
            tip("name:N", title or "source"),
            tip("n:Q", "examples", ","),
            *(tip(f"p{p}:Q", f"{p} % below", ".3f") for p in (5, 25, 50, 75, 95)),
        ],
    )
    x = alt.X("p5:Q", title="gap", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    whisker = base.mark_rule(style="whisker").encode(x=x, x2="p95:Q")
    box = base.mark_rule(style="box").encode(x="p25:Q", x2="p75:Q")
    middle = base.mark_tick(style="middle", height=14).encode(x="p50:Q")
    return alt.layer(whisker, box, middle, height=ROW * len(rows), width="container")


def depth(ranked: int) -> Drawing:
    """The share of refusals among the first k."""
    steps = (1, 2, 5) if ranked < 20_000 else (1,)
    ticks = [step * 10**power for power in range(1, 9) for step in steps]
    axis = alt.Axis(labelExpr=SHORT, values=[tick for tick in ticks if tick <= ranked])
    log, from_zero = alt.Scale(type="log", nice=False), alt.Scale(domainMin=0)
    base = named("depth", 190).encode(
        x=alt.X("depth:Q", title="the first k of the ranking", scale=log, axis=axis),
        y=alt.Y("share:Q", title="refusals among them", scale=from_zero, axis=PERCENT),
        tooltip=[
            tip("depth:Q", "first k", ","),
            tip("refusals:Q", "refusals", ","),
            tip("share:Q", "share", ".1%"),
        ],
    )
    line = base.mark_line(style="refusal-line", point=False)
    return alt.layer(base.mark_area(style="refusal-area"), line, height=190, width="container")
