"""The plots, as PNG and SVG: every arm, the fractions, and misalignment against learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.efficacy.intervals import Table, by_seed, over_seeds
from bench.efficacy.measures import ABOUT
from bench.efficacy.plan import DOMAINS, FRACTIONS, MAIN
from curate.storage import parts

SHOWN = ("misalignment", "narrow", "general", "gsm8k", "refusing harmful", "refusing harmless")


def write(table: Table, folder: Path) -> None:
    """Draw all that the runs give; needs the extra `report`."""
    import vl_convert

    from curate.report.look import on_paper

    for name, spec in _drawings(table).items():
        options: Any = {"config": on_paper(), "allowed_base_urls": []}
        svg = vl_convert.vegalite_to_svg(spec, **options)
        png = vl_convert.vegalite_to_png(spec, scale=2.0, **options)
        parts.write_text(folder / f"{name}.svg", svg)
        with parts.atomic(folder / f"{name}.png") as path:
            path.write_bytes(png)


def _drawings(table: Table) -> dict[str, dict[str, Any]]:
    domains = [name for name in DOMAINS if any(domain == name for domain, _, _ in table)]
    found = {
        "arms": _arms(table, domains),
        "fractions": _fractions(table, domains),
        "trade": _trade(table, domains),
    }
    return {name: chart.to_dict() for name, chart in found.items() if chart is not None}


def _rows(table: Table, domains: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """An arm's mean and interval for each measure that is shown."""
    rows = []
    for arm in names:
        for measure in SHOWN:
            cell = over_seeds([*by_seed(table, arm, measure, domains).values()])
            if cell.n:
                half = cell.half if cell.n > 1 else 0.0
                ends = {"low": cell.mean - half, "high": cell.mean + half}
                about = f"{ABOUT[measure][:3]} {measure}"
                rows.append({"arm": arm, "measure": about, "value": cell.mean, **ends})
    return rows


def _chart(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.InlineData(values=rows))


def _arms(table: Table, domains: Sequence[str]) -> Any:
    import altair as alt

    order = [arm.name for arm in (*MAIN, *FRACTIONS)]
    base = _chart(_rows(table, domains, order))
    y = alt.Y("arm:N", sort=order, title=None)
    dot = base.mark_point(filled=True, size=50).encode(
        x=alt.X("value:Q", title="nats per token"), y=y
    )
    bar = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y)
    zero = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.datum(0))
    titles = [f"{ABOUT[measure][:3]} {measure}" for measure in SHOWN]
    return (
        (zero + bar + dot)
        .properties(width=190, height=260)
        .facet(alt.Facet("measure:N", sort=titles, title=None), columns=3)
        .resolve_scale(x="independent")
        .properties(title="Change against before fine-tuning, 95 % intervals over seeds")
    )


def _fractions(table: Table, domains: Sequence[str]) -> Any:
    import altair as alt

    rows = []
    for percent in (1, 2, 5, 10, 20):
        for kind in ("random", "plusplus"):
            for row in _rows(table, domains, [f"{kind}-{percent}"]):
                if row["measure"][:3] in ("(a)", "(b)"):
                    rows.append({**row, "percent": percent, "mix": kind})
    if not rows:
        return None
    base = _chart(rows).encode(
        x=alt.X("percent:O", title="safe rows, % of the narrow set's"),
        color=alt.Color("mix:N", title=None),
        xOffset="mix:N",
    )
    dots = base.mark_point(filled=True, size=60).encode(y=alt.Y("value:Q", title="nats per token"))
    bars = base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q")
    return (
        (bars + dots)
        .properties(width=280, height=220)
        .facet(alt.Facet("measure:N", title=None))
        .resolve_scale(y="independent")
    )


def _trade(table: Table, domains: Sequence[str]) -> Any:
    import altair as alt

    rows = []
    for arm in (each.name for each in (*MAIN, *FRACTIONS)):
        for domain in domains:
            cells = {
                measure: over_seeds([*by_seed(table, arm, measure, [domain]).values()])
                for measure in ("misalignment", "narrow")
            }
            if cells["narrow"].n:
                means = {name: cell.mean for name, cell in cells.items()}
                rows.append({"arm": arm, "domain": domain, **means})
    base = _chart(rows).encode(
        x=alt.X("narrow:Q", title="(b) narrow NLL", scale=alt.Scale(zero=False)),
        y=alt.Y("misalignment:Q", title="(a) misalignment"),
    )
    dots = base.mark_point(filled=True, size=50)
    names = base.mark_text(align="left", dx=6, fontSize=9).encode(text="arm:N")
    return (
        (dots + names)
        .properties(width=300, height=260)
        .facet(alt.Facet("domain:N", title=None))
        .resolve_scale(x="independent", y="independent")
    )
