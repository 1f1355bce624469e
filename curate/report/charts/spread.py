"""How the gaps lie: four charts that filter each other, quantiles, refusals by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import altair as alt

from curate.report.charts.frame import BAR, KEEP, ROW, SHORT, Drawing, named
from curate.report.lens import Row, length_label

if TYPE_CHECKING:
    from curate.report.findings import Spread

# Of each band its first length alone: ten bands fit on a phone.
_FROM = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '–')[0]", labelOverlap=True)


def brushed(spread: Spread) -> dict[str, Drawing]:
    """The four charts that filter each other: all counted over every ranked example."""
    lengths = [length_label(row["length_bin"]) for row in _by_bin(spread)]
    sources = list(dict.fromkeys(row["label"] for row in spread.sources))
    count = alt.Y("sum(n):Q", title=None, axis=alt.Axis(tickCount=4, labelExpr=SHORT))
    across = alt.X("sum(n):Q", title=None, axis=alt.Axis(tickCount=3, labelExpr=SHORT))
    shown = [alt.Tooltip("sum(n):Q", title="examples", format=",")]
    gap = {
        "x": alt.X("gap:Q", bin="binned", title="gap", axis=alt.Axis(tickCount=8, format="~g")),
        "x2": "gap_end:Q",
        "y": count,
        "tooltip": [
            alt.Tooltip("gap:Q", title="gap from", format=".3~f"),
            alt.Tooltip("gap_end:Q", title="to", format=".3~f"),
            *shown,
        ],
    }
    length = {
        "x": alt.X("length:N", sort=lengths, title="answer tokens, from", axis=_FROM),
        "y": count,
        "tooltip": [alt.Tooltip("length:N", title="answer tokens"), *shown],
    }
    source = {
        "y": alt.Y("source:N", sort=sources, title=None),
        "x": across,
        "tooltip": ["source:N", *shown],
    }
    refusal = {
        "y": alt.Y("refusal:N", sort=["answer", "refusal"], title=None),
        "x": across,
        "tooltip": [alt.Tooltip("refusal:N", title="kind"), *shown],
    }
    brush = alt.selection_interval(name="pick", encodings=["x"])
    return {
        "gaps": _over(gap, 190, brush),
        "lengths": _over(length, 190, brush, width=alt.RelativeBandSize(band=0.86)),
        "sources": _over(source, ROW * len(sources), _click("source"), height=BAR),
        "refusals": _over(refusal, ROW * 2, _click("refusal"), height=BAR),
    }


def _by_bin(spread: Spread) -> list[Mapping[str, Any]]:
    bins = sorted({_first(row["name"]) for row in spread.by_length})
    return [{"length_bin": place} for place in bins]


def _first(label: str) -> int:
    return int(label.split("–")[0].replace(",", "")).bit_length() - 1


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
    order = [row["name"] for row in rows]
    base = named(name).encode(
        y=alt.Y("name:N", sort=order, title=title),
        tooltip=[
            alt.Tooltip("name:N", title=title or "source"),
            alt.Tooltip("n:Q", title="examples", format=","),
            *(alt.Tooltip(f"p{p}:Q", title=f"{p} % below", format=".3f") for p in (5, 25)),
            alt.Tooltip("p50:Q", title="median", format=".3f"),
            *(alt.Tooltip(f"p{p}:Q", title=f"{p} % below", format=".3f") for p in (75, 95)),
        ],
    )
    x = alt.X("p5:Q", title="gap", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    whisker = base.mark_rule(style="whisker").encode(x=x, x2="p95:Q")
    box = base.mark_rule(style="box").encode(x="p25:Q", x2="p75:Q")
    middle = base.mark_tick(style="middle", height=14).encode(x="p50:Q")
    return alt.layer(whisker, box, middle, height=ROW * len(order), width="container")


def depth(ranked: int) -> Drawing:
    """The share of refusals among the first k."""
    steps = (1, 2, 5) if ranked < 20_000 else (1,)
    ticks = [step * 10**power for power in range(1, 9) for step in steps]
    base = named("depth", 190).encode(
        x=alt.X(
            "depth:Q",
            title="the first k of the ranking",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(labelExpr=SHORT, values=[tick for tick in ticks if tick <= ranked]),
        ),
        y=alt.Y(
            "share:Q",
            title="refusals among them",
            scale=alt.Scale(domainMin=0),
            axis=alt.Axis(format="~%", tickCount=5),
        ),
        tooltip=[
            alt.Tooltip("depth:Q", title="first k", format=","),
            alt.Tooltip("refusals:Q", format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    line = base.mark_line(style="refusal-line", point=False)
    return alt.layer(base.mark_area(style="refusal-area"), line, height=190, width="container")
