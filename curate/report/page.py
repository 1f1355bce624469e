"""From findings to one HTML file: a template that escapes, data that can't end its element."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from functools import cache, partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from curate.errors import CurateError
from curate.report import advice, charts, look
from curate.storage import parts

if TYPE_CHECKING:
    from curate.report.findings import Findings, Reading

# Inside a script element only these can end it, open a comment, or break a line of JavaScript.
_UNSAFE = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def html(found: Findings, reading: list[Reading]) -> str:
    """The whole page."""
    made, ranking = charts.charts(found), found.ranking
    payload = {
        "charts": {name: chart.to_dict() for name, chart in made.items()},
        "data": charts.data(found),
        "themes": look.themes(),
        "examples": [
            {name: row[name] for name in ("id", "prompt", "answer")}
            for row in (ranking.points if ranking else ())
        ],
    }
    bundle, script = libraries(), _file("report.js")
    text: str = _template().render(
        found=found,
        ranking=ranking,
        reading=reading,
        say=advice,
        charts=set(made),
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
    options: Any = {"config": look.on_paper(), "allowed_base_urls": []}
    for name, chart in charts.charts(found).items():
        spec = chart.to_dict()
        spec["datasets"] = rows | spec.get("datasets", {})
        spec |= {"title": charts.TITLES[name], "width": WIDTH}
        spec.pop("config", None)
        svg = vl_convert.vegalite_to_svg(spec, **options)
        png = vl_convert.vegalite_to_png(spec, scale=SCALE, **options)
        written += [folder / f"{name}.svg", folder / f"{name}.png"]
        parts.write_text(written[-2], svg)
        parts.write_with(written[-1], partial(_fill, png))
    return written


def _fill(content: bytes, path: Path) -> None:
    path.write_bytes(content)
