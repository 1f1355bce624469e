"""Colors and type of the charts, light and dark; the page's own are in page/report.css."""

from __future__ import annotations

from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

# Named styles that charts ask for, so that one chart is right in both looks.
_LIGHT = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#e4e7eb",
    "ghost": "#d9dee4",
    "accent": "#2f6fb3",
    "refusal": "#9a5bc4",
    "taken": "#12866b",
    "warm": "#c65a1e",
    "ramp": ["#eef3f9", "#2f6fb3", "#163a63"],
}
_DARK = {
    "ink": "#e7e9ec",
    "muted": "#9aa5b1",
    "line": "#2d343c",
    "ghost": "#39424c",
    "accent": "#6cabea",
    "refusal": "#c196ea",
    "taken": "#45c9a3",
    "warm": "#f0935c",
    "ramp": ["#1f2730", "#2f6ba6", "#4a8fd6"],
}


def themes() -> dict[str, dict[str, Any]]:
    """A Vega-Lite config for each look."""
    return {"light": _config(_LIGHT), "dark": _config(_DARK)}


def _config(color: dict[str, Any]) -> dict[str, Any]:
    axis = {
        "labelColor": color["muted"],
        "titleColor": color["muted"],
        "gridColor": color["line"],
        "domainColor": color["line"],
        "tickColor": color["line"],
        "labelFontSize": 11.5,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "labelLimit": 190,
    }
    legend = {
        "labelColor": color["ink"],
        "titleColor": color["muted"],
        "labelFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "labelLimit": 260,
    }
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": "transparent"},
        "axis": axis,
        "axisY": {"domain": False, "ticks": False},
        "axisX": {"grid": False},
        "legend": legend,
        "title": {"color": color["ink"], "fontSize": 13, "anchor": "start", "offset": 10},
        "text": {"color": color["ink"], "fontSize": 12},
        "mark": {"color": color["accent"]},
        "bar": {"color": color["accent"]},
        "rule": {"color": color["muted"]},
        "range": {
            "category": [color["accent"], color["refusal"], color["taken"], color["warm"]],
            "heatmap": color["ramp"],
        },
        # `color`, not fill or stroke: a mark's own default would win over those.
        "style": {
            "ghost": {"color": color["ghost"]},
            "taken": {"color": color["taken"]},
            "taken-line": {"color": color["taken"], "strokeWidth": 1.5, "strokeDash": [6, 4]},
            "refusal-line": {"color": color["refusal"], "strokeWidth": 2.5},
            "refusal-area": {"color": color["refusal"], "opacity": 0.16},
            "zero": {"color": color["muted"], "strokeDash": [2, 3], "strokeWidth": 1},
            "note": {"color": color["muted"], "fontSize": 11.5},
            "on-dark": {"color": "#ffffff"},
            "whisker": {"color": color["ghost"], "strokeWidth": 3, "strokeCap": "round"},
            "box": {"color": color["accent"], "strokeWidth": 9, "opacity": 0.55},
            "middle": {"color": color["ink"], "thickness": 2.5},
        },
    }


def on_paper() -> dict[str, Any]:
    """The light look on a white ground, for pictures that stand alone."""
    return _config(_LIGHT) | {"background": "#ffffff", "padding": 16}
