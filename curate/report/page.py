"""From findings to one HTML file, with every text escaped."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from curate.report import advice, charts, look
from curate.report.findings import Findings, Reading
from curate.storage import parts

# Inside a script element, only these can end it, open a comment or break a line of JavaScript.
_UNSAFE = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def html(found: Findings, reading: list[Reading], bare: list[str]) -> str:
    """The page; `bare` lists the models without stored tokens."""
    made = {name: chart.to_dict() for name, chart in charts.charts(found).items()}
    points = found.ranking.points if found.ranking else []
    payload = {
        "charts": made,
        "data": charts.data(found),
        "themes": look.themes(),
        "examples": [{n: row[n] for n in ("id", "prompt", "answer")} for row in points],
    }
    # Vega, Vega-Lite and Vega-Embed in one script.
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub wants one
    script = _file("report.js")
    text: str = _template().render(
        found=found,
        ranking=found.ranking,
        reading=reading,
        bare=bare,
        say=advice,
        advice=list(advice.advice(found)),
        charts=made,
        titles=charts.TITLES,
        data=embedded(payload),
        style=Markup(_file("report.css")),
        bundle=Markup(bundle),
        script=Markup(script),
        policy=_policy(bundle, script),
        version=version("curate-gap"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return text


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a script element, whatever its texts."""
    return Markup(orjson.dumps(value).decode().translate(_UNSAFE))


def _policy(*scripts: str) -> str:
    """A policy under which only these scripts run and nothing is fetched, should escaping fail."""
    digests = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "short": _short,
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


WIDTH = 620  # CSS pixels; a PNG has twice as many
SCALE = 2.0


def write(found: Findings, folder: Path) -> list[Path]:
    """Write `NAME.png` and `NAME.svg` for every chart of the page; return their paths."""
    rows, written = charts.data(found), []
    options: Any = {"config": look.on_paper(), "allowed_base_urls": []}
    for name, chart in charts.charts(found).items():
        spec = chart.to_dict()
        spec["datasets"] = rows | spec.get("datasets", {})
        spec |= {"title": charts.TITLES[name], "width": WIDTH}
        spec.pop("config", None)
        svg = vl_convert.vegalite_to_svg(spec, **options)
        png = vl_convert.vegalite_to_png(spec, scale=SCALE, **options)
        for ending, content in (("svg", svg.encode()), ("png", png)):
            written.append(folder / f"{name}.{ending}")
            with parts.atomic(written[-1]) as temporary:
                temporary.write_bytes(content)
    return written
