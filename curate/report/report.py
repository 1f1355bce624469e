"""From a corpus to one HTML page, and to its charts as pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.storage import parts
from curate.system import buckets
from curate.system.sql import readable_errors


@readable_errors()  # a damaged part may come up late
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
        CurateError: neither output is given, a file exists and `force` is not set, the extra
            `report` is not installed, or the manifest is wrong. No file is left half written.
    """
    if output is None and plots is None:
        raise CurateError("nothing to write: give --output FILE.html, --plots DIR, or both")
    if any(find_spec(name) is None for name in ("altair", "vl_convert")):
        raise CurateError(
            "a report needs Altair and vl-convert. In your clone, run: pip install '.[report]'"
        )
    page_path, folder = (Path(each) if each else None for each in (output, plots))
    address = buckets.address_of(output) if output else None
    if address and buckets.exists(address) and not force:
        raise CurateError(f"{address}: already exists. Choose another, or use --force.")
    if folder:
        parts.refuse_address(folder)
    if page_path and not address:
        parts.refuse_existing(page_path, force)
    if folder and folder.exists():
        if not folder.is_dir():
            raise CurateError(f"{folder}: a file. Give --plots a folder.")
        if any(folder.iterdir()) and not force:
            raise CurateError(f"{folder}: not empty. Choose another folder, or use --force.")
    from curate.report import page
    from curate.report.findings import find, readings

    found = find(corpus, Path(export) if export else None)
    written = []
    if page_path:
        read, bare = readings(corpus, found.ranking) if found.ranking else ([], [])
        text = page.html(found, read, bare)
        if address:
            top, _, name = address.rpartition("/")
            buckets.upload(top, {name: text.encode()})
        else:
            parts.write_text(page_path, text)
        written.append(page_path)
    if folder:
        written += page.write(found, folder)
    return written
