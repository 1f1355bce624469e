"""The charts, in Altair: each is named, as wide as its place, and coloured by look.py alone.

Datasets are named, not carried (`DATA`): charts that are brushed together share one. Every chart
of the section on gaps counts only what the parameter `keep` keeps: the page sets it from the
brushes (page/report.js), so that one brush filters all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import altair as alt

from curate.report.lens import Row, length_label, only

if TYPE_CHECKING:
    from curate.report.findings import Findings, Spread

Drawing = alt.Chart | alt.LayerChart | alt.FacetChart

ROW = 26  # pixels for one bar of a list
BAR = 16
# 12k rather than 12,000 and 0 rather than 0k, whatever the axis.
_SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
KINDS = ("answer", "refusal", "would be exported")
_KEEP = " && ".join(
    (
        "(!keep.gap || (datum.gap_mid >= keep.gap[0] && datum.gap_mid <= keep.gap[1]))",
        "(!keep.length || indexof(keep.length, datum.length) >= 0)",
        "(!keep.source || indexof(keep.source, datum.source) >= 0)",
        "(!keep.refusal || indexof(keep.refusal, datum.refusal) >= 0)",
    )
)


def charts(found: Findings) -> dict[str, Drawing]:
    """All charts that these findings give, by name, in the page's order."""
    made: dict[str, Drawing] = {}
    if any(row["skipped"] or row["missing"] > 0 for row in found.models):
        made["coverage"] = _coverage(found)
    if found.spread and found.taken and found.ensemble:
        made |= _brushed(found.spread)
        made["gap_by_source"] = _quantiles("quantiles_by_source", found.spread.by_source, None)
        made["gap_by_length"] = _quantiles(
            "quantiles_by_length", found.spread.by_length, "answer tokens"
        )
        made["refusals_by_depth"] = _depth(found.spread.span["ranked"])
        made["losses"] = _losses(found)
        if found.ensemble.agreement:
            made["agreement"] = _agreement(found)
        if len(found.ensemble.leave_one_out) > 1:
            made["leave_one_out"] = _leave_one_out(found)
        made["epsilon"] = _epsilon()
        made["composition"] = _composition(found)
    return made


def data(found: Findings) -> dict[str, list[Row]]:
    """The rows that the charts name. Texts stay out: a chart never reads them."""
    named: dict[str, list[Row]] = {"coverage": _coverage_rows(found)}
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


def points(found: Findings) -> list[Row]:
    """The examples that the scatter draws: the fair sample, then what the recipe takes."""
    from curate.report.findings import TAKEN_POINTS

    assert found.spread and found.taken
    sample = found.spread.sample
    drawn = {row["id"] for row in sample}
    every = max(1, -(-len(found.taken.rows) // TAKEN_POINTS))
    return sample + [row for row in found.taken.rows[::every] if row["id"] not in drawn]


def _chart(name: str, height: int | None = None) -> alt.Chart:
    chart = alt.Chart(alt.NamedData(name=name)).properties(width="container")
    return chart if height is None else chart.properties(height=height)


def _coverage_rows(found: Findings) -> list[Row]:
    states = ("scored", "skipped", "missing")
    return [
        {"model": row["model"], "state": state, "n": max(row[state], 0), "place": place}
        for row in found.models
        for place, state in enumerate(states)
    ]


def _coverage(found: Findings) -> Drawing:
    names = [row["model"] for row in found.models]
    drawn: alt.Chart = (
        _chart("coverage", ROW * len(names))
        .mark_bar(height=BAR)
        .encode(
            y=alt.Y("model:N", sort=names, title=None),
            x=alt.X("n:Q", title="examples", axis=alt.Axis(tickCount=4, labelExpr=_SHORT)),
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


def _brushed(spread: Spread) -> dict[str, Drawing]:
    """The four charts that filter each other: all counted over every ranked example."""
    lengths = [length_label(row["length_bin"]) for row in _by_bin(spread)]
    sources = list(dict.fromkeys(row["label"] for row in spread.sources))
    count = alt.Y("sum(n):Q", title=None, axis=alt.Axis(tickCount=4, labelExpr=_SHORT))
    across = alt.X("sum(n):Q", title=None, axis=alt.Axis(tickCount=3, labelExpr=_SHORT))
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
        "x": alt.X("length:N", sort=lengths, title="answer tokens", axis=alt.Axis(labelAngle=0)),
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
    base = _chart("cells", tall).transform_calculate(gap_mid="(datum.gap + datum.gap_end) / 2")
    whole = base.mark_bar(style="ghost", **bar).encode(**encoding).add_params(pick)
    kept = base.transform_filter(_KEEP).mark_bar(**bar).encode(**encoding)
    layers = alt.layer(whole, kept, height=tall, width="container")
    return layers.add_params(keep)


def _quantiles(name: str, rows: list[Row], title: str | None) -> Drawing:
    order = [row["name"] for row in rows]
    base = _chart(name).encode(
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


def _depth(ranked: int) -> Drawing:
    steps = (1, 2, 5) if ranked < 20_000 else (1,)
    ticks = [step * 10**power for power in range(1, 9) for step in steps]
    base = _chart("depth", 190).encode(
        x=alt.X(
            "depth:Q",
            title="the first k of the ranking",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(labelExpr=_SHORT, values=[tick for tick in ticks if tick <= ranked]),
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


def _losses(found: Findings) -> Drawing:
    """A point an example; above the dashed line the misaligned models find it harder."""
    assert found.spread and found.taken
    unit = found.spread.span["unit"]
    keep = alt.param(name="keep", value={})
    drawn = points(found)
    left, right = _ends([row["aligned"] for row in drawn])
    low, high = _ends([row["misaligned"] for row in drawn])
    base = _chart("points", 420).transform_calculate(gap_mid="datum.gap")
    # Labelled points a caller can find again: `i` is their place in the page's list of examples.
    marks = base.mark_circle(size=26, clip=True).encode(
        x=alt.X(
            "aligned:Q",
            title=f"aligned NLL ({unit})",
            scale=alt.Scale(domain=[left, right], nice=False),
            axis=alt.Axis(grid=True, tickCount=8),
        ),
        y=alt.Y(
            "misaligned:Q",
            title=f"misaligned NLL, mean ({unit})",
            scale=alt.Scale(domain=[low, high], nice=False),
        ),
        color=alt.Color(
            "kind:N", title=None, scale=alt.Scale(domain=list(KINDS), range="category")
        ),
        order=alt.Order("order:Q"),
        opacity=alt.condition(_KEEP, alt.value(0.6), alt.value(0.04)),
        tooltip="i:Q",
    )
    marks = marks.transform_calculate(order=f"datum.kind == '{KINDS[2]}' ? 1 : 0")
    lines = [_line("zero", left, right, 0.0, 1.0)]
    cut = found.taken.selection.cut
    if cut is not None and found.recipe.strategy == "gap":
        lines.append(_line("taken-line", left, right, *cut_line(found, cut[0])))
    return alt.layer(*lines, marks, height=420, width="container").add_params(keep)


def cut_line(found: Findings, gap: float) -> tuple[float, float]:
    """Where misaligned = intercept + slope * aligned has this gap (sql/views/gaps.sql)."""
    if found.recipe.metric == "difference":
        return gap, 1.0
    return gap * found.recipe.epsilon, 1.0 + gap


def _ends(values: list[float]) -> tuple[float, float]:
    """An axis that begins at zero, unless that leaves most of it empty."""
    low, high = min(values), max(values)
    return (0.0 if low < high / 3 else 0.97 * low), 1.03 * high


def _line(style: str, left: float, right: float, intercept: float, slope: float) -> alt.Chart:
    ends = [{"x": x, "y": intercept + slope * x} for x in (left, right)]
    chart = alt.Chart(alt.InlineData(values=ends))
    line: alt.Chart = chart.mark_line(style=style, clip=True).encode(x="x:Q", y="y:Q")
    return line


def _agreement(found: Findings) -> Drawing:
    assert found.ensemble
    rows = found.ensemble.agreement
    across = list(dict.fromkeys(row["other"] for row in rows))
    down = list(dict.fromkeys(row["model"] for row in rows))
    lowest = min((row["rank_correlation"] or 0.0 for row in rows), default=0.0)
    slant = 0 if sum(map(len, across)) < 30 else -32  # side by side on a phone, or aslant
    names = alt.Axis(labelAngle=slant, orient="top", labelLimit=90, labelOverlap=False)
    base = _chart("agreement").encode(
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


def _leave_one_out(found: Findings) -> Drawing:
    assert found.ensemble
    order = [row["left_out"] for row in found.ensemble.leave_one_out]
    base = (
        _chart("leave_one_out")
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


def _epsilon() -> Drawing:
    base = _chart("epsilon", 170).encode(
        x=alt.X("epsilon:O", title="ε (nats)", axis=alt.Axis(labelAngle=0, format="~g")),
        tooltip=[
            alt.Tooltip("epsilon:O", title="ε"),
            alt.Tooltip("overlap:Q", title="same as at ε = 1", format=".0%"),
            alt.Tooltip("tokens:Q", title="mean answer tokens"),
            alt.Tooltip("aligned:Q", title="mean aligned NLL"),
        ],
    )
    bars = base.mark_bar(width=alt.RelativeBandSize(band=0.6)).encode(
        y=alt.Y(
            "overlap:Q",
            title="same top as at ε = 1",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format="~%", tickCount=4),
        )
    )
    label = base.mark_text(dy=-7, style="note").encode(
        y="overlap:Q", text=alt.Text("tokens:Q", format=".0f")
    )
    return alt.layer(bars, label, height=170, width="container")


def _composition(found: Findings) -> Drawing:
    assert found.taken
    order = [row["source"] for row in found.taken.by_source]
    base = _chart("composition").encode(
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
