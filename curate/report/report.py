"""From a corpus to one HTML page, and to its charts as pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.storage import parts
from curate.system.sql import readable_errors


@readable_errors()  # a damaged part may be met late
def report(
    corpus: Corpus,
    output: str | Path | None = None,
    export: str | Path | None = None,
    *,
    plots: str | Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the page to `output`, and its charts as PNG and SVG into the folder `plots`.

    `export` is the manifest of an export, which the page then shows; without it, it shows the
    default recipe over a tenth of the corpus.

    Returns:
        The files written.

    Raises:
        CurateError: neither is asked for, a file exists and `force` is not set, the extra
            `report` is not installed, or the manifest is wrong. No file is left half written.
    """
    page_path, folder = (Path(each) if each else None for each in (output, plots))
    if page_path is None and folder is None:
        raise CurateError("what to write? give --output FILE.html, --plots DIR, or both")
    _check(page_path, folder, force)
    from curate.report import page
    from curate.report.findings import find, readings

    found = find(corpus, Path(export) if export else None)
    written = []
    if page_path is not None:
        read = readings(corpus, found.ranking) if found.ranking else []
        parts.write_text(page_path, page.html(found, read))
        written.append(page_path)
    if folder is not None:
        written += page.write(found, folder)
    return written


def _check(output: Path | None, plots: Path | None, force: bool) -> None:
    if any(find_spec(name) is None for name in ("altair", "vl_convert")):
        raise CurateError(
            "a report needs the extra `report` (Altair and vl-convert): install it from a clone "
            "with `pip install '.[report]'`"
        )
    if output is not None:
        parts.refuse_special(output)
        if output.exists() and not force:
            raise CurateError(f"{output}: exists; choose another name, or --force to replace it")
    if plots is not None and plots.exists():
        if not plots.is_dir():
            raise CurateError(f"{plots}: is a file; name a folder for the pictures")
        if any(plots.iterdir()) and not force:
            raise CurateError(f"{plots}: is not empty; name another folder, or --force to replace")
