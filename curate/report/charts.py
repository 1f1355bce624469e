"""The charts, in Altair and in the page's order. Their colors come from look.py.

Charts name their datasets (`data`) instead of embedding them, so charts that are brushed together
share one. Every chart in the section on gaps counts only what the parameter `keep` lets through:
the page sets it from the brushes (page/report.js), so one brush filters them all.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from curate.report.findings import Findings, Ranking
from curate.report.lens import Row
from curate.selection.recipe import Recipe

TITLES = {
    "coverage": "Examples scored, skipped and missing, per model",
    "gaps": "Gap",
    "lengths": "Answer length",
    "sources": "Source",
    "refusals": "Answers and refusals",
    "gap_by_source": "The gap by source",
    "gap_by_length": "The gap by length",
    "refusals_by_depth": "Refusals in the ranking",
    "losses": "NLL of each example",
    "agreement": "Rank correlation of the gaps",
    "leave_one_out": "Leaving one model out",
    "epsilon": "Other values of ε",
    "composition": "Where the rows come from",
}
Drawing = alt.LayerChart | alt.FacetChart

_ROW, _BAR = 26, 16  # pixels: the place of one bar of a list, and the bar
# 12k rather than 12,000, and 0 rather than 0k.
_SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
_COUNTS = alt.Axis(tickCount=4, labelExpr=_SHORT)
_PERCENT = alt.Axis(format="~%", tickCount=5)
_ALL = alt.Scale(domain=[0, 1])
_EXAMPLES = alt.Tooltip("sum(n):Q", title="examples", format=",")
_KEEP = alt.param(name="keep", value={})
_KEPT = (
    "(!keep.gap || (datum.gap_mid >= keep.gap[0] && datum.gap_mid <= keep.gap[1]))"
    " && (!keep.length || indexof(keep.length, datum.length) >= 0)"
    " && (!keep.source || indexof(keep.source, datum.source) >= 0)"
    " && (!keep.refusal || indexof(keep.refusal, datum.refusal) >= 0)"
)


def charts(found: Findings) -> dict[str, Drawing]:
    """All charts for these findings, by name, in the page's order."""
    made: dict[str, Drawing] = {}
    if any(row["skipped"] or row["missing"] > 0 for row in found.models):
        made["coverage"] = _coverage(found.models)
    if ranking := found.ranking:
        tables = ranking.tables
        made |= _brushed(ranking)
        made["gap_by_source"] = _quantiles("gap_by_source", tables["gap_by_source"])
        made["gap_by_length"] = _quantiles(
            "gap_by_length", tables["gap_by_length"], "answer tokens"
        )
        made["refusals_by_depth"] = _depth(ranking.span["ranked"])
        made["losses"] = _losses(found.recipe, ranking)
        made["agreement"] = _agreement(tables["agreement"])
        if len(tables["leave_one_out"]) > 1:
            made["leave_one_out"] = _leave_one_out(tables["leave_one_out"])
        if tables["epsilon"]:
            made["epsilon"] = _epsilon(found.recipe.epsilon)
        made["composition"] = _composition(tables["composition"])
    return made


def data(found: Findings) -> dict[str, list[Row]]:
    """The rows of the datasets that the charts name, without texts, which no chart reads."""
    named = {
        "coverage": [
            {"model": row["model"], "state": state, "n": max(row[state], 0), "place": place}
            for row in found.models
            for place, state in enumerate(("scored", "skipped", "missing"))
        ]
    }
    if ranking := found.ranking:
        numbers = ("source", "refusal", "aligned", "misaligned", "gap", "rank", "tokens", "length")
        named["points"] = [
            {name: row[name] for name in numbers}
            | {"i": i, "kind": "exported" if row["is_taken"] else row["refusal"]}
            for i, row in enumerate(ranking.points)
        ]
        named |= ranking.tables
    return named


def cut_line(recipe: Recipe, gap: float) -> tuple[float, float]:
    """The line misaligned = intercept + slope * aligned on which the gap is `gap`."""
    if recipe.metric == "difference":
        return gap, 1.0
    return gap * recipe.epsilon, 1.0 + gap


def _named(name: str, *tips: alt.Tooltip, **encoding: Any) -> alt.Chart:
    """A chart of a named dataset, with the lines of its tooltip."""
    chart: alt.Chart = alt.Chart(alt.NamedData(name=name)).encode(tooltip=list(tips), **encoding)
    return chart


def _tip(field: str, title: str, **more: Any) -> alt.Tooltip:
    return alt.Tooltip(field, title=title, **more)


def _list_of(rows: list[Row], column: str, title: str | None = None) -> alt.Y:
    """An axis of names, in the order of their rows."""
    return alt.Y(f"{column}:N", sort=[row[column] for row in rows], title=title)


def _drawing(height: int, *layers: alt.Chart) -> Drawing:
    return alt.layer(*layers, height=height, width="container")


def _coverage(models: list[Row]) -> Drawing:
    """One bar per model: how many examples it scored, skipped and lacks."""
    # The category colors are for kinds of examples; the fourth is the warning.
    colors = alt.Scale(domain=["scored", "skipped", "-", "missing"], range="category")
    legend = alt.Legend(values=["scored", "skipped", "missing"])
    bars = _named(
        "coverage",
        _tip("model:N", "model"),
        _tip("state:N", "state"),
        _tip("n:Q", "n", format=","),
        y=_list_of(models, "model"),
        x=alt.X("n:Q", title="examples", axis=_COUNTS),
        color=alt.Color("state:N", title=None, scale=colors, legend=legend),
        order=alt.Order("place:O"),
    )
    return _drawing(_ROW * len(models), bars.mark_bar(height=_BAR))


def _brushed(ranking: Ranking) -> dict[str, Drawing]:
    """The four charts that filter each other, over every ranked example."""
    lengths = [row["name"] for row in ranking.tables["gap_by_length"]]
    # Label each band by its first length only, so that ten bands fit on a phone.
    start = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '–')[0]", labelOverlap=True)
    brush = alt.selection_interval(name="pick", encodings=["x"])
    count = alt.Y("sum(n):Q", title=None, axis=_COUNTS)
    gaps = _named(
        "cells",
        _tip("gap:Q", "gap from", format=".3~f"),
        _tip("gap_end:Q", "to", format=".3~f"),
        _EXAMPLES,
        x=alt.X("gap:Q", bin="binned", title="gap", axis=alt.Axis(tickCount=8, format="~g")),
        x2="gap_end:Q",
        y=count,
    )
    by_length = _named(
        "cells",
        _tip("length:N", "answer tokens"),
        _EXAMPLES,
        x=alt.X("length:N", sort=lengths, title="answer tokens, from", axis=start),
        y=count,
    )
    return {
        "gaps": _over(gaps, 190, brush),
        "lengths": _over(by_length, 190, brush, width=alt.RelativeBandSize(band=0.86)),
        "sources": _tapped("source", "source", ranking.sources),
        "refusals": _tapped("refusal", "kind", ["answer", "refusal"]),
    }


def _tapped(field: str, title: str, values: list[str]) -> Drawing:
    """Bars that toggle when tapped: a phone has no shift key."""
    pick = alt.selection_point(name="pick", fields=[field], toggle="true", clear=False)
    bars = _named(
        "cells",
        _tip(f"{field}:N", title),
        _EXAMPLES,
        y=alt.Y(f"{field}:N", sort=values, title=None),
        x=alt.X("sum(n):Q", title=None, axis=_COUNTS),
    )
    return _over(bars, _ROW * len(values), pick, height=_BAR)


def _over(bars: alt.Chart, tall: int, pick: alt.Parameter, **bar: Any) -> Drawing:
    """Bars of the matching examples in front of bars of all examples."""
    bars = bars.transform_calculate(gap_mid="(datum.gap + datum.gap_end) / 2")
    whole = bars.mark_bar(style="ghost", **bar).add_params(pick)
    kept = bars.transform_filter(_KEPT).mark_bar(**bar)
    return _drawing(tall, whole, kept).add_params(_KEEP)


def _quantiles(name: str, rows: list[Row], title: str | None = None) -> Drawing:
    """A line, a box and a median mark for each row of quantiles."""
    base = _named(
        name,
        _tip("name:N", title or "source"),
        _tip("n:Q", "examples", format=","),
        *(_tip(f"p{p}:Q", f"{p} % below", format=".3f") for p in (5, 25, 50, 75, 95)),
        y=_list_of(rows, "name", title),
    )
    x = alt.X("p5:Q", title="gap", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
    return _drawing(
        _ROW * len(rows),
        base.mark_rule(style="whisker").encode(x=x, x2="p95:Q"),
        base.mark_rule(style="box").encode(x="p25:Q", x2="p75:Q"),
        base.mark_tick(style="middle", height=14).encode(x="p50:Q"),
    )


def _depth(ranked: int) -> Drawing:
    """The share of refusals among the first k."""
    steps = (1, 2, 5) if ranked < 20_000 else (1,)
    ticks = [step * 10**power for power in range(1, 9) for step in steps]
    axis = alt.Axis(labelExpr=_SHORT, values=[tick for tick in ticks if tick <= ranked])
    log, from_zero = alt.Scale(type="log", nice=False), alt.Scale(domainMin=0)
    base = _named(
        "depth",
        _tip("depth:Q", "first k", format=","),
        _tip("refusals:Q", "refusals", format=","),
        _tip("share:Q", "share", format=".1%"),
        x=alt.X("depth:Q", title="the first k of the ranking", scale=log, axis=axis),
        y=alt.Y("share:Q", title="refusals among them", scale=from_zero, axis=_PERCENT),
    )
    line = base.mark_line(style="refusal-line", point=False)
    return _drawing(190, base.mark_area(style="refusal-area"), line)


def _losses(recipe: Recipe, ranking: Ranking) -> Drawing:
    """One point per example; above the dotted line, the misaligned models find it harder."""
    unit = ranking.span["unit"]
    ends, heights = (_ends([p[key] for p in ranking.points]) for key in ("aligned", "misaligned"))
    across, up = (alt.Scale(domain=each, nice=False) for each in (ends, heights))
    axis = alt.Axis(grid=True, tickCount=8)
    kinds = alt.Scale(domain=["answer", "refusal", "exported"], range="category")
    marks = (
        _named(
            "points",
            alt.Tooltip("i:Q"),  # the example's place in the page's list
            x=alt.X("aligned:Q", title=f"aligned NLL ({unit})", scale=across, axis=axis),
            y=alt.Y("misaligned:Q", title=f"misaligned NLL, mean ({unit})", scale=up),
            color=alt.Color("kind:N", title=None, scale=kinds),
            order=alt.Order("order:Q"),
            opacity=alt.condition(_KEPT, alt.value(0.6), alt.value(0.04)),
        )
        .transform_calculate(gap_mid="datum.gap", order="datum.kind == 'exported' ? 1 : 0")
        .mark_circle(size=26, clip=True)
    )
    lines = [("zero", 0.0, 1.0)]
    if ranking.shown.cut and not recipe.is_random:
        lines.append(("taken-line", *cut_line(recipe, ranking.shown.cut[0])))
    drawn = [
        alt.Chart(alt.InlineData([{"x": x, "y": at_zero + slope * x} for x in ends]))
        .mark_line(style=style, clip=True)
        .encode(x="x:Q", y="y:Q")
        for style, at_zero, slope in lines
    ]
    return _drawing(420, *drawn, marks).add_params(_KEEP)


def _ends(values: list[float]) -> list[float]:
    """The ends of an axis that begins at zero unless that would leave most of it empty."""
    low, high = min(values), max(values)
    return [0.0 if low < high / 3 else 0.97 * low, 1.03 * high]


def _agreement(rows: list[Row]) -> Drawing:
    """Spearman's ρ of every pair, as a heat map."""
    across = list(dict.fromkeys(row["other"] for row in rows))
    down = list(dict.fromkeys(row["model"] for row in rows))
    lowest = min(row["rank_correlation"] or 0.0 for row in rows)
    slant = 0 if sum(map(len, across)) < 30 else -32  # level if the names fit on a phone
    names = alt.Axis(labelAngle=slant, orient="top", labelLimit=90, labelOverlap=False)
    base = _named(
        "agreement",
        _tip("model:N", "model"),
        _tip("other:N", "and"),
        _tip("rank_correlation:Q", "Spearman's ρ", format=".3f"),
        _tip("examples:Q", "examples", format=","),
        x=alt.X("other:N", sort=across, title=None, axis=names),
        y=alt.Y("model:N", sort=down, title=None),
    )
    colors = alt.Scale(domain=[min(0.0, lowest), 1], range="heatmap")
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("rank_correlation:Q", scale=colors, legend=None)
    )
    text = base.encode(text=alt.Text("rank_correlation:Q", format=".2f"))
    light = text.transform_filter("datum.rank_correlation < 0.5").mark_text()
    dark = text.transform_filter("datum.rank_correlation >= 0.5").mark_text(style="on-dark")
    return _drawing(46 * len(down), cells, light, dark)


def _leave_one_out(rows: list[Row]) -> Drawing:
    """How much of the top would change without each model."""
    title = "share of the top that would change"
    base = _named(
        "leave_one_out",
        _tip("left_out:N", "left out"),
        _tip("new:Q", "new examples", format=","),
        _tip("top:Q", "of", format=","),
        y=_list_of(rows, "left_out"),
        x=alt.X("changed:Q", title=title, scale=_ALL, axis=_PERCENT),
    ).transform_calculate(changed="1 - datum.overlap")
    label = base.mark_text(align="left", dx=5, style="note")
    label = label.encode(text=alt.Text("changed:Q", format=".0%"))
    return _drawing(_ROW * len(rows), base.mark_bar(height=_BAR), label)


def _epsilon(usual: float) -> Drawing:
    """How much of the top stays the same with other values of ε."""
    same = f"at ε = {usual:g}"
    base = _named(
        "epsilon",
        _tip("epsilon:O", "ε"),
        _tip("overlap:Q", f"same as {same}", format=".0%"),
        _tip("tokens:Q", "mean answer tokens"),
        _tip("aligned:Q", "mean aligned NLL"),
        x=alt.X("epsilon:O", title="ε (nats)", axis=alt.Axis(labelAngle=0, format="~g")),
        y=alt.Y("overlap:Q", title=f"same top as {same}", scale=_ALL, axis=_PERCENT),
    )
    bars = base.mark_bar(width=alt.RelativeBandSize(band=0.6))
    label = base.mark_text(dy=-7, style="note").encode(text=alt.Text("tokens:Q", format=".0f"))
    return _drawing(170, bars, label)


def _composition(rows: list[Row]) -> Drawing:
    """Each source's share of the exported rows, in front of its share of all ranked examples."""
    base = _named(
        "composition",
        _tip("source:N", "source"),
        _tip("taken:Q", "exported", format=","),
        _tip("share:Q", "share of the export", format=".1%"),
        _tip("usual:Q", "share of all ranked", format=".1%"),
        y=_list_of(rows, "source"),
    )
    usual = base.mark_bar(style="ghost", height=18).encode(
        x=alt.X("usual:Q", title="share", axis=_PERCENT)
    )
    return _drawing(
        _ROW * len(rows), usual, base.mark_bar(style="taken", height=9).encode(x="share:Q")
    )
