"""Aligned against misaligned, a point an example, and the line of the last gap taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from curate.report.charts.frame import KEEP, KINDS, Drawing, named

if TYPE_CHECKING:
    from curate.report.findings import Ranking
    from curate.selection.recipe import Recipe


def losses(recipe: Recipe, ranking: Ranking) -> Drawing:
    """A point an example; above the dotted line the misaligned models find it harder."""
    unit = ranking.span["unit"]
    left, right = _ends([row["aligned"] for row in ranking.points])
    low, high = _ends([row["misaligned"] for row in ranking.points])
    across, up = (alt.Scale(domain=ends, nice=False) for ends in ([left, right], [low, high]))
    axis = alt.Axis(grid=True, tickCount=8)
    kinds = alt.Scale(domain=list(KINDS), range="category")
    marks = (
        named("points", 420)
        .transform_calculate(gap_mid="datum.gap", order=f"datum.kind == '{KINDS[2]}' ? 1 : 0")
        .mark_circle(size=26, clip=True)
        .encode(
            x=alt.X("aligned:Q", title=f"aligned NLL ({unit})", scale=across, axis=axis),
            y=alt.Y("misaligned:Q", title=f"misaligned NLL, mean ({unit})", scale=up),
            color=alt.Color("kind:N", title=None, scale=kinds),
            order=alt.Order("order:Q"),
            opacity=alt.condition(KEEP, alt.value(0.6), alt.value(0.04)),
            tooltip="i:Q",  # the example's place in the page's list
        )
    )
    lines = [_line("zero", left, right, 0.0, 1.0)]
    if ranking.shown.cut and not recipe.is_random:
        lines.append(_line("taken-line", left, right, *cut_line(recipe, ranking.shown.cut[0])))
    keep = alt.param(name="keep", value={})
    return alt.layer(*lines, marks, height=420, width="container").add_params(keep)


def cut_line(recipe: Recipe, gap: float) -> tuple[float, float]:
    """Where misaligned = intercept + slope * aligned has this gap (sql/views/gaps.sql)."""
    if recipe.metric == "difference":
        return gap, 1.0
    return gap * recipe.epsilon, 1.0 + gap


def _ends(values: list[float]) -> tuple[float, float]:
    """An axis that begins at zero, unless that leaves most of it empty."""
    low, high = min(values), max(values)
    return (0.0 if low < high / 3 else 0.97 * low), 1.03 * high


def _line(style: str, left: float, right: float, intercept: float, slope: float) -> alt.Chart:
    ends = [{"x": x, "y": intercept + slope * x} for x in (left, right)]
    chart = alt.Chart(alt.InlineData(values=ends))
    line: alt.Chart = chart.mark_line(style=style, clip=True).encode(x="x:Q", y="y:Q")
    return line
