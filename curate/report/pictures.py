"""The report's charts as PNG and SVG files, drawn offline by vl-convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.report import charts, look, page
from curate.storage import parts

if TYPE_CHECKING:
    from curate.report.findings import Findings

WIDTH = 620  # CSS pixels; a PNG has twice as many
SCALE = 2.0


def write(found: Findings, folder: Path) -> list[Path]:
    """Write `NAME.png` and `NAME.svg` for every chart of the page; gives back their paths."""
    import vl_convert

    rows, written = charts.data(found), []
    for name, chart in charts.charts(found).items():
        spec = alone(chart.to_dict(), rows, page.TITLES[name])
        options: Any = {"config": look.on_paper(), "allowed_base_urls": []}
        svg = vl_convert.vegalite_to_svg(spec, **options)
        png = vl_convert.vegalite_to_png(spec, scale=SCALE, **options)
        written += [folder / f"{name}.svg", folder / f"{name}.png"]
        parts.write_text(written[-2], svg)
        parts.write_with(written[-1], _fill(png))
    return written


def alone(spec: dict[str, Any], rows: dict[str, Any], title: str) -> dict[str, Any]:
    """A chart that stands without the page: with its data, a title and a width of its own."""
    carried = {name: rows[name] for name in names_of(spec)}
    own = {key: value for key, value in spec.items() if key not in ("config", "datasets")}
    datasets = carried | spec.get("datasets", {})
    return own | {"datasets": datasets, "title": title, "width": WIDTH}


def names_of(spec: dict[str, Any]) -> set[str]:
    """The datasets that a chart names and does not carry."""
    found = {spec["data"]["name"]} if "name" in spec.get("data", {}) else set()
    for layer in spec.get("layer", []):
        found |= names_of(layer)
    return found - set(spec.get("datasets", {}))


def _fill(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)
