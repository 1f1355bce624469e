"""From findings to one HTML file: a template that escapes, data that can't end its element."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from curate.errors import CurateError
from curate.report import advice, charts, look, words
from curate.report.lens import only

if TYPE_CHECKING:
    from curate.report.findings import Findings
    from curate.report.reading import Reading

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
        gap_formula=words.formula(found),
        recipe_words=words.recipe(found),
        sampling=words.sampling(found),
        left_out=words.left_out(found),
        tails=words.tails(found),
        about_models=words.about_models(found),
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
