"""Aligned against misaligned, a point an example, and the line of the last gap taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from curate.report.charts.frame import KEEP, KINDS, Drawing, named
from curate.report.lens import Row

if TYPE_CHECKING:
    from curate.report.findings import Findings


def points(found: Findings) -> list[Row]:
    """The examples that the scatter draws: the fair sample, then what the recipe takes."""
    from curate.report.findings import TAKEN_POINTS

    assert found.spread and found.taken
    sample = found.spread.sample
    drawn = {row["id"] for row in sample}
    every = max(1, -(-len(found.taken.rows) // TAKEN_POINTS))
    return sample + [row for row in found.taken.rows[::every] if row["id"] not in drawn]


def losses(found: Findings) -> Drawing:
    """A point an example; above the dashed line the misaligned models find it harder."""
    assert found.spread and found.taken
    unit = found.spread.span["unit"]
    keep = alt.param(name="keep", value={})
    drawn = points(found)
    left, right = _ends([row["aligned"] for row in drawn])
    low, high = _ends([row["misaligned"] for row in drawn])
    base = named("points", 420).transform_calculate(gap_mid="datum.gap")
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
        opacity=alt.condition(KEEP, alt.value(0.6), alt.value(0.04)),
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
