"""`curate demo`: the whole way on bundled models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.options import QuietOption, progress
from curate.stopping import kept


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo writes.", metavar="DIR")
    ] = Path("curate-demo"),
    quiet: QuietOption = False,
) -> None:
    """Go the whole way on bundled models and data, offline.

    Example: curate demo --dir /tmp/curate-demo
    """
    from curate import display
    from curate.demo import run

    with kept(directory / "corpus"):
        made = run(directory, progress(quiet))
    display.demo(made)
