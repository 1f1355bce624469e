"""`curate demo`: the whole way on bundled models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import JsonOption, QuietOption, print_json, progress
from curate.running.keeping import kept


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo writes.", metavar="DIR")
    ] = Path("curate-demo"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go the whole way on bundled models and data, offline.

    Example: curate demo --dir /tmp/curate-demo
    """
    from dataclasses import asdict

    from curate.demo import run
    from curate.terminal import display

    with kept(directory / "corpus"):
        made = run(directory, progress(quiet or as_json))
    if as_json:
        print_json(asdict(made))
    else:
        display.demo(made)
