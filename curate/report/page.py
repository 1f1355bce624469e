"""From findings to one HTML file: a template that escapes, data that can't end its element."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from curate.errors import CurateError
from curate.report import advice, charts, look
from curate.report.lens import only
from curate.storage import parts

if TYPE_CHECKING:
    from curate.report.findings import Findings, Reading

# Inside a script element only these can end it, open a comment, or break a line of JavaScript.
_UNSAFE = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}

TITLES = {
    "coverage": "Examples scored, skipped and missing, per model",
    "gaps": "Gap",
    "lengths": "Length",
    "sources": "Source",
    "refusals": "Refusal",
    "gap_by_source": "The gap by source",
    "gap_by_length": "The gap by length",
    "refusals_by_depth": "Refusals in the ranking",
    "losses": "Aligned against misaligned",
    "agreement": "Rank correlation of the gaps",
    "leave_one_out": "Leaving one model out",
    "epsilon": "Other values of ε",
    "composition": "Where the rows come from",
}


def html(found: Findings, reading: list[Reading]) -> str:
    """The whole page."""
    made = charts.charts(found)
    drawn = charts.points(found) if found.spread else []
    payload = {
        "charts": {name: chart.to_dict() for name, chart in made.items()},
        "data": charts.data(found),
        "themes": look.themes(),
        "examples": [only(row, "id", "prompt", "answer") for row in drawn],
    }
    bundle, script = libraries(), _file("report.js")
    text: str = _template().render(
        found=found,
        reading=reading,
        brief=advice.brief(found),
        advice=advice.advice(found, any(each.tokens for each in reading)),
        export_command=advice.export_command(found),
        gap_formula=advice.formula(found),
        recipe_words=advice.recipe(found),
        sampling=advice.sampling(found),
        left_out=advice.left_out(found),
        tails=advice.tails(found),
        about_models=advice.about_models(found),
        charts=set(made),
        titles=TITLES,
        data=embedded(payload),
        style=Markup(_file("report.css")),
        bundle=Markup(bundle),
        script=Markup(script),
        policy=_policy(bundle, script),
        version=version("curate"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return text


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a script element whatever texts it holds."""
    return Markup(orjson.dumps(value).decode().translate(_UNSAFE))


@cache
def libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, from the package that also draws pictures.

    Raises:
        CurateError: the extra `report` is not installed.
    """
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub wants one
    if "</script" in bundle.lower() or "<!--" in bundle:
        raise CurateError("this vl-convert-python can't be put into a page; install another")
    return bundle


def _policy(*scripts: str) -> str:
    """Only these scripts run, nothing is fetched: what slipped through escaping stays dead."""
    digests = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "short": _short,
        "percent": _percent,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
    }
    return environment.from_string(_file("report.html.j2"))


def _file(name: str) -> str:
    return (resources.files("curate.report") / "page" / name).read_text("utf-8")


def _short(value: float) -> str:
    """1234567 as 1.23M."""
    if abs(value) < 100_000:
        return f"{value:,.0f}"
    power = min(int(math.log10(abs(value)) // 3), 4)
    return f"{value / 1000**power:.3g}{' kMGT'[power].strip()}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < abs(value) < 0.1 else f"{value:.0%}"


WIDTH = 620  # CSS pixels; a PNG has twice as many
SCALE = 2.0


def write(found: Findings, folder: Path) -> list[Path]:
    """Write `NAME.png` and `NAME.svg` for every chart of the page; gives back their paths."""
    import vl_convert

    rows, written = charts.data(found), []
    for name, chart in charts.charts(found).items():
        spec = alone(chart.to_dict(), rows, TITLES[name])
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
