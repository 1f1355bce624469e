"""What all charts share: sizes, kinds of examples, and which rows the brushes keep."""

from __future__ import annotations

from typing import Any

import altair as alt

from curate.report.lens import Row

Drawing = alt.Chart | alt.LayerChart | alt.FacetChart

ROW = 26  # pixels for one bar of a list
BAR = 16
# 12k rather than 12,000 and 0 rather than 0k, whatever the axis.
SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
COUNTS = alt.Axis(tickCount=4, labelExpr=SHORT)
PERCENT = alt.Axis(format="~%", tickCount=5)
KINDS = ("answer", "refusal", "exported")
KEEP = " && ".join(
    (
        "(!keep.gap || (datum.gap_mid >= keep.gap[0] && datum.gap_mid <= keep.gap[1]))",
        "(!keep.length || indexof(keep.length, datum.length) >= 0)",
        "(!keep.source || indexof(keep.source, datum.source) >= 0)",
        "(!keep.refusal || indexof(keep.refusal, datum.refusal) >= 0)",
    )
)


def named(name: str, height: int | None = None) -> alt.Chart:
    """A chart of a named dataset, as wide as its place."""
    chart = alt.Chart(alt.NamedData(name=name)).properties(width="container")
    return chart if height is None else chart.properties(height=height)


def list_of(rows: list[Row], column: str, title: str | None = None) -> alt.Y:
    """An axis of names, in the order of their rows."""
    return alt.Y(f"{column}:N", sort=[row[column] for row in rows], title=title)


def tip(field: str, title: str, format: str = "") -> alt.Tooltip:
    """A line of a tooltip."""
    options: dict[str, Any] = {"format": format} if format else {}
    return alt.Tooltip(field, title=title, **options)
