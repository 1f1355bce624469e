"""`curate report`: its options, and one call into `curate.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.options import (
    CorpusOption,
    EpsilonOption,
    ForceOption,
    HoldOutOption,
    Metric,
    Refusals,
    Strategy,
)


def report(
    corpus: CorpusOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page, an .html file.", metavar="FILE")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(help="Write its charts here, as PNG and SVG.", metavar="DIR"),
    ] = None,
    top: Annotated[int, typer.Option(help="Show an export of the N best examples.")] = 1000,
    refusals: Annotated[
        Refusals, typer.Option(help="Leave refusals out of it, keep them, or take them alone.")
    ] = Refusals.drop,
    strategy: Annotated[
        Strategy, typer.Option(help="The largest gaps, or a random draw.")
    ] = Strategy.gap,
    metric: Annotated[Metric, typer.Option(help="The gap's formula.")] = Metric.relative,
    epsilon: EpsilonOption = 1.0,
    hold_out: HoldOutOption = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL over the columns of gaps and examples: what may be taken."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random draw.")] = 0,
    force: ForceOption = False,
) -> None:
    """Write a corpus as one HTML page that opens offline, on any screen.

    Example: curate report -c my-corpus -o report.html
    """
    from curate import Recipe
    from curate import open as open_corpus
    from curate.report import write

    recipe = Recipe(
        top=top,
        refusals=refusals.value,
        strategy=strategy.value,
        metric=metric.value,
        epsilon=epsilon,
        hold_out=tuple(hold_out or ()),
        where=where,
        seed=seed,
    )
    written = write(open_corpus(corpus), recipe, output=output, plots=plots, force=force)
    if output is not None:
        print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB); open it in a browser")
    if plots is not None:
        print(f"wrote {len(written) - (output is not None)} pictures into {plots}")
