"""How results are printed: tables for people, JSON for machines.

Data never controls the terminal: its control characters are made visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""

# Control characters, and those that turn the direction of the text after them round, so that what
# is shown is not what is there.
_TURNS = "\\u2028-\\u202e\\u2066-\\u2069"
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNS}]")
_HIGH_CONTROL = re.compile(rf"[\x7f-\x9f{_TURNS}]")  # JSON escapes the others


def clean(text: str) -> str:
    """Text from data with its control characters made visible, so that no escape code acts."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, wrap: bool = False) -> None:
    """Print a table fitted to the terminal: numbers whole, long text cut, or wrapped if asked."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    values = list(rows)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    overflow: Literal["fold", "ellipsis"] = "fold" if wrap else "ellipsis"
    for at, column in enumerate(columns):
        number = any(isinstance(row[at], int | float | Decimal) for row in values)
        grid.add_column(Text(clean(column)), justify="right" if number else "left", no_wrap=number)
    for row in values:
        cells = [_cell(value) for value in row]
        grid.add_row(
            *(
                _Ending(cell)
                if column in _PATHS and not wrap
                else Text(cell, no_wrap=not wrap, overflow=overflow)
                for column, cell in zip(columns, cells, strict=True)
            )
        )
    console.print(grid)


_PATHS = {"source", "reference", "file"}


class _Ending:
    """A cell that is cut at its front where there is no room: a path's end says most."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        width = cell_len(self._text)
        return Measurement(min(width, 12), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        shown = Text(self._text, no_wrap=True)
        start = 0
        while shown.cell_len > options.max_width:
            start += 1
            shown = Text("…" + self._text[start:], no_wrap=True)
        yield shown


def records(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print these columns of rows that are dicts."""
    table(columns, [[row[column] for column in columns] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float | Decimal):
        return f"{value:.4g}" if abs(float(value)) < 1e6 else f"{value:,.0f}"
    return clean(" ".join(str(value).split()))


def print_json(value: Any) -> None:
    """Print a result for machines: NaN and infinities are null, dates and the like are text."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """JSON that any parser takes and that can't control a terminal."""
    import orjson

    def plain(other: Any) -> float | str:
        return float(other) if isinstance(other, Decimal) else str(other)

    return escape(orjson.dumps(value, default=plain, option=orjson.OPT_INDENT_2).decode())


def escape(text: str) -> str:
    """JSON text with the control characters escaped that JSON allows."""
    return _HIGH_CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


_STRONGEST = 2.0
"""Nats: a gap of this size or more has the full color; most tokens' gaps are far smaller."""
_HARDER, _EASIER = (224, 90, 40), (60, 120, 216)


def colored(tokens: Sequence[tuple[str, float]] | None) -> bool:
    """Print an answer's tokens in color; False, and nothing printed, where that can't be.

    Orange is harder for the misaligned models, blue for the aligned one.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not tokens or not console.is_terminal or console.no_color or not console.color_system:
        return False
    answer = Text()
    for text, gap in tokens:
        shown = text.replace("\n", "↵\n") if text.isspace() else text
        answer.append(clean(shown), _style(gap))
    console.print(answer)
    key = Text("token gap, nats (+: harder for misaligned models)")
    for gap in (2.0, 1.0, 0.3, -0.3, -1.0, -2.0):
        key.append(f" {gap:+g} ", _style(gap))
    console.print("\n", key, sep="", soft_wrap=True)
    return True


def _style(gap: float) -> str:
    """Dark text on a tint, readable on light and dark terminals."""
    if abs(gap) < 0.05:
        return ""
    share = min(abs(gap) / _STRONGEST, 1.0)
    full = _HARDER if gap > 0 else _EASIER
    red, green, blue = (round(255 - (255 - channel) * (0.15 + 0.85 * share)) for channel in full)
    return f"#101010 on #{red:02x}{green:02x}{blue:02x}"
