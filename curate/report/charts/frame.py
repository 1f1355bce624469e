"""What all charts share: sizes, kinds of examples, and which rows the brushes keep."""

from __future__ import annotations

import altair as alt

Drawing = alt.Chart | alt.LayerChart | alt.FacetChart

ROW = 26  # pixels for one bar of a list
BAR = 16
# 12k rather than 12,000 and 0 rather than 0k, whatever the axis.
SHORT = "abs(datum.value) < 1000 ? format(datum.value, '~r') : format(datum.value, '~s')"
KINDS = ("answer", "refusal", "would be exported")
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
