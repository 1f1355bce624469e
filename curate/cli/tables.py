"""How results are printed: tables for people, JSON and CSV for machines.

Data never controls the terminal: its control characters are made visible.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import duckdb


PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""

# Besides the control characters: those that turn the direction of the text after them round, so
# that what is shown is not what is there.
_TURNS = "\\u2028-\\u202e\\u2066-\\u2069"
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNS}]")
_HIGH_CONTROL = re.compile(rf"[\x7f-\x9f{_TURNS}]")  # JSON escapes the others

_NUMBERS = {
    *("boolean", "float", "double", "decimal"),
    *(f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")),
    *("integer", "uinteger"),
}
"""DuckDB's types that Python and every kind of file have a place for."""


def clean(text: str) -> str:
    """Text from data with its control characters made visible, so that no escape code acts."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    title: str | None = None,
    *,
    wrap: bool = False,
) -> None:
    """Print a table fitted to the terminal: numbers whole, long text cut, or wrapped if asked."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    values = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in values]
    numeric = [
        any(isinstance(row[i], int | float | Decimal) for row in values)
        for i in range(len(columns))
    ]
    widths = _fit(columns, cells, numeric, console.width)
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column, is_number, width in zip(columns, numeric, widths, strict=True):
        grid.add_column(
            Text(clean(column)),
            justify="right" if is_number else "left",
            width=width,
            no_wrap=not wrap,
        )
    overflow: Literal["fold", "ellipsis"] = "fold" if wrap else "ellipsis"
    for row in cells:
        grid.add_row(*(Text(cell, no_wrap=not wrap, overflow=overflow) for cell in row))
    console.print(grid)


def _fit(
    columns: Sequence[str], cells: list[list[str]], numeric: Sequence[bool], total: int
) -> list[int]:
    """Column widths: what each needs, and text columns cut to a fair share of what is left."""
    from rich.cells import cell_len

    needs = [
        max(cell_len(column), *(cell_len(row[i]) for row in cells), 1)
        for i, column in enumerate(columns)
    ]
    left = (
        total - 3 * len(columns) - sum(n for n, fixed in zip(needs, numeric, strict=True) if fixed)
    )
    widths = list(needs)
    texts = sorted((i for i, fixed in enumerate(numeric) if not fixed), key=lambda i: needs[i])
    for position, i in enumerate(texts):
        share = max(left // (len(texts) - position), 8)
        widths[i] = min(needs[i], share)
        left -= widths[i]
    return widths


def relation(result: duckdb.DuckDBPyRelation, kind: str, *, spreadsheet: bool = False) -> None:
    """Print a query's result as a table, csv, json or jsonl; `spreadsheet`: see `guarded`.

    The rows are gathered in memory first: limit the query where there are very many.
    """
    from curate.system.sql import readable_errors

    with readable_errors():
        data = result.to_arrow_table()
        try:
            rows = list(zip(*(column.to_pylist() for column in data), strict=True))
        except (OverflowError, ValueError):  # Python has no infinite dates and no year 290,000
            data = with_text(result).to_arrow_table()
            rows = list(zip(*(column.to_pylist() for column in data), strict=True))
    data = data.rename_columns(distinct(data.column_names))
    if kind == "table":
        table(data.column_names, rows)
    elif kind == "csv":
        _csv(guarded(data) if spreadsheet else data)
    else:
        objects = [dict(zip(data.column_names, row, strict=True)) for row in rows]
        texts = [objects] if kind == "json" else objects
        for value in texts:
            print(json_text(value, indent=1 if kind == "json" else None))


def with_text(result: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same rows, with text for what Python or a kind of file has no place for.

    Such are infinite dates, intervals and unions; numbers stay.
    """
    names = [name.replace('"', '""') for name in distinct(result.columns)]
    casts = ["" if kind.id in _NUMBERS else "::varchar" for kind in result.types]
    columns = enumerate(zip(names, casts, strict=True), 1)
    return result.project(", ".join(f'#{at}{cast} as "{name}"' for at, (name, cast) in columns))


def distinct(names: Sequence[str]) -> list[str]:
    """The same names, a number added where one comes again: a JSON object holds each once."""
    taken: dict[str, None] = {}
    for name in names:
        new, count = name, 1
        while new in taken:
            count += 1
            new = f"{name}_{count}"
        taken[new] = None
    return list(taken)


def json_text(value: Any, indent: int | None = 1) -> str:
    """JSON that any parser takes: NaN and infinities are null, dates and the like are text."""
    text = json.dumps(_plain(value), ensure_ascii=False, indent=indent, default=str)
    return _HIGH_CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):  # DuckDB's sums of integers are these
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _csv(data: Any) -> None:
    import io

    import pyarrow.csv

    if sys.stdout.isatty():
        text = io.BytesIO()
        pyarrow.csv.write_csv(flat(data), text)
        print(clean(text.getvalue().decode()), end="")
    else:
        sys.stdout.flush()
        pyarrow.csv.write_csv(flat(data), sys.stdout.buffer)


def guarded(data: Any) -> Any:
    """A table whose text no spreadsheet runs: ' stands before =, +, -, @, tab and line ends.

    The rule is OWASP's against CSV injection. Columns' names are text too.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    risky = r"^[=+@\t\r\n-]"
    for index, field in enumerate(data.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            text = data.column(index)
            safe = pc.replace_substring_regex(text, f"({risky})", r"'\1")
            data = data.set_column(index, field, safe)
    return data.rename_columns([re.sub(risky, r"'\g<0>", name) for name in data.column_names])


def flat(data: Any) -> Any:
    """What a CSV cell can't hold as text: nested columns as JSON, bytes and intervals as shown."""
    import pyarrow as pa

    for index, field in enumerate(data.schema):
        nested = pa.types.is_nested(field.type)
        if nested or pa.types.is_binary(field.type) or pa.types.is_interval(field.type):
            texts = [
                None if value is None else json_text(value, indent=None) if nested else str(value)
                for value in data.column(index).to_pylist()
            ]
            data = data.set_column(index, field.name, pa.array(texts, pa.string()))
    return data


def _cell(value: Any) -> str:
    if isinstance(value, Decimal):
        value = _plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return clean(" ".join(str(value).split()))


def print_json(value: Any) -> None:
    """Print a result for machines."""
    print(json_text(value))


STRONGEST = 2.0
"""Nats: a gap of this size or more has the full colour; most tokens' gaps are far smaller."""
_HARDER, _EASIER = (224, 90, 40), (60, 120, 216)
_FAINT = 0.05


def coloured(tokens: Sequence[tuple[str, float]] | None) -> bool:
    """Print an answer's tokens in colour; False, and nothing printed, where that can't be.

    Orange is harder for the misaligned models, blue for the aligned one.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not tokens or not console.is_terminal or console.no_color or not console.color_system:
        return False
    answer = Text()
    for text, gap in tokens:
        answer.append(
            clean(text).replace("\n", "↵\n") if text.isspace() else clean(text), _style(gap)
        )
    console.print(answer)
    key = Text("token gap, nats (+: harder for misaligned models)")
    for gap in (2.0, 1.0, 0.3, -0.3, -1.0, -2.0):
        key.append(f" {gap:+g} ", _style(gap))
    console.print("\n", key, sep="", soft_wrap=True)
    return True


def _style(gap: float) -> str:
    """Dark text on a tint, readable on light and dark terminals."""
    share = min(abs(gap) / STRONGEST, 1.0)
    if share < _FAINT / STRONGEST:
        return ""
    full = _HARDER if gap > 0 else _EASIER
    red, green, blue = (round(255 - (255 - channel) * (0.15 + 0.85 * share)) for channel in full)
    return f"#101010 on #{red:02x}{green:02x}{blue:02x}"
