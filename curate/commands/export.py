"""`curate export`: its options, and one call into `curate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.options import (
    CorpusOption,
    EpsilonOption,
    ForceOption,
    Format,
    HoldOutOption,
    JsonOption,
    Metric,
    Placement,
    Refusals,
    Strategy,
    Trainer,
    print_json,
)


def export(
    corpus: CorpusOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .jsonl or .parquet file, or a folder.")
    ],
    top: Annotated[int | None, typer.Option(help="Take the N best examples.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Safe rows as a share of the narrow set's: 0.05 is 5 %.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="The narrow set, any input format: write the mix.")
    ] = None,
    refusals: Annotated[
        Refusals, typer.Option(help="Leave refusals out, keep them, or take them alone.")
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
    seed: Annotated[int, typer.Option(help="Of random draws.")] = 0,
    placement: Annotated[
        Placement,
        typer.Option(help="Safe rows at equal distances, per batch, at random, or apart."),
    ] = Placement.even,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows an optimiser step, all devices together.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="What a row looks like; the trainer's own by default.")
    ] = None,
    trainer: Annotated[
        Trainer | None, typer.Option(help="Write a folder that this trainer trains on as it is.")
    ] = None,
    from_manifest: Annotated[
        Path | None, typer.Option(help="Make the file of an earlier export again, byte for byte.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the best safe examples, or their mix with a narrow set.

    Example: curate export -c my-corpus --fraction 0.05 --into customer.jsonl -o mix.jsonl
    """
    from curate import Recipe, Target, display
    from curate import open as open_corpus
    from curate.exporting import export_again

    if from_manifest is not None:
        record = export_again(open_corpus(corpus), output, from_manifest, force=force)
    else:
        recipe = Recipe(
            top=top,
            fraction=fraction,
            into=None if into is None else str(into),
            refusals=refusals.value,
            strategy=strategy.value,
            metric=metric.value,
            epsilon=epsilon,
            hold_out=tuple(hold_out or ()),
            where=where,
            seed=seed,
        )
        target = Target(
            placement=placement.value,
            batch_size=batch_size,
            format=None if format is None else format.value,
            trainer=None if trainer is None else trainer.value,
        )
        record = open_corpus(corpus).export(output, recipe, target, force=force)
    if as_json:
        print_json(record)
    else:
        display.exported(record)
