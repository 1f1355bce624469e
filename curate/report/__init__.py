"""A report on a scored corpus: one HTML file that opens offline, and its charts as pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from curate.errors import CurateError
from curate.storage import parts

if TYPE_CHECKING:
    from curate.corpus.corpus import Corpus
    from curate.selection.recipe import Recipe

_NEEDED = ("altair", "vl_convert")


def write(
    corpus: Corpus,
    recipe: Recipe,
    *,
    output: Path | None = None,
    plots: Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the page to `output`, and its charts as PNG and SVG into the folder `plots`.

    Returns:
        The files written.

    Raises:
        CurateError: neither is asked for, a file exists and `force` is not set, the extra
            `report` is not installed, or the recipe is wrong. No file is left half written.
    """
    if output is None and plots is None:
        raise CurateError("what to write? give --output FILE.html, --plots DIR, or both")
    _check(output, plots, force)
    from curate.report.findings import find, readings
    from curate.system.sql import readable_errors

    with readable_errors():  # a damaged part may be met late
        found = find(corpus, recipe)
        read = readings(corpus, found.taken, recipe.hold_out) if output and found.taken else []
    written = []
    if output is not None:
        from curate.report import page

        text = page.html(found, read)
        parts.write_text(output, text)
        written.append(output)
    if plots is not None:
        from curate.report import page

        written += page.write(found, plots)
    return written


def _check(output: Path | None, plots: Path | None, force: bool) -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise CurateError(
            "a report needs the extra `report` (Altair and vl-convert): install it with "
            "`pip install 'curate[report]'`, from a clone `pip install '.[report]'`"
        )
    if output is not None:
        parts.refuse_special(output)
    if output is not None and output.exists() and not force:
        raise CurateError(f"{output}: exists; choose another name, or --force to replace it")
    if plots is not None and plots.exists() and not plots.is_dir():
        raise CurateError(f"{plots}: is a file; name a folder for the pictures")
    if plots is not None and plots.is_dir() and any(plots.iterdir()) and not force:
        raise CurateError(f"{plots}: is not empty; name another folder, or --force to replace")
