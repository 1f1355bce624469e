"""`curate report`: its options, and one call into `curate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from curate.cli.options import CorpusOption, ForceOption, option


def report(
    corpus: CorpusOption,
    output: Annotated[
        Path | None,
        option("The page, an .html file, or s3://...", "FILE", names=["--output", "-o"]),
    ] = None,
    export: Annotated[
        Path | None, option("Show this export. Default: the top tenth.", "MANIFEST")
    ] = None,
    plots: Annotated[Path | None, option("Write the charts here, as PNG and SVG.", "DIR")] = None,
    force: ForceOption = False,
) -> None:
    """Write a corpus as one HTML page that opens offline, on any screen.

    Example: curate report -c my-corpus -o report.html
    """
    from curate import open as open_corpus
    from curate import report as run
    from curate.system.buckets import address_of

    written = run(open_corpus(corpus), output, export, plots=plots, force=force)
    if output is not None:
        address = address_of(output)
        size = "" if address else f" ({output.stat().st_size / 1e6:.1f} MB)"
        print(f"Wrote {address or output}{size}. Open it in a browser.")
    if plots is not None:
        print(f"Wrote {len(written) - (output is not None)} pictures to {plots}")
