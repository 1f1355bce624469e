"""`curate export`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from curate.cli.completion import misaligned_names
from curate.cli.exported import exported, exported_again
from curate.cli.options import (
    COLUMN,
    LAYOUTS,
    CorpusOption,
    ForceOption,
    JsonOption,
    columns,
    option,
    with_options,
)
from curate.cli.tables import print_json
from curate.errors import CurateError
from curate.selection.recipe import Metric, Published, Refusals, quota, share

_AGAIN = {"corpus", "output", "into", "from_manifest", "force", "as_json"}
_budget = partial(option, panel="Size (give one)")
_choice = partial(option, panel="Selection")
_refusal = partial(option, panel="Refusals")
_duplicate = partial(option, panel="Duplicates and contamination")
_spread = partial(option, panel="Spread")
_file = partial(option, panel="Mix and files")


def size_options(
    top: Annotated[int | None, _budget("Select the N best examples.", "N")] = None,
    fraction: Annotated[
        float | None,
        _budget("Select this share of the narrow dataset's rows: 0.05 or 5%.", "F", parser=share),
    ] = None,
    tokens: Annotated[
        int | None,
        _budget("Stop before the first answer that would exceed N tokens in total.", "N"),
    ] = None,
    into: Annotated[
        str | None, option("The narrow dataset to mix into, in any input format.", "NARROW")
    ] = None,
    column: Annotated[
        list[str] | None, _file(f"For the narrow dataset. {COLUMN}", "ROLE=NAME")
    ] = None,
    layouts: Annotated[str | None, _file(f"For the narrow dataset. {LAYOUTS}", "FILE")] = None,
) -> dict[str, Any]:
    """The budget and the narrow dataset, as fields of a recipe."""
    return {
        "top": top,
        "fraction": fraction,
        "tokens": tokens,
        "into": into,
        "columns": columns(column),
        "layouts": layouts,
    }


def ranking_options(
    recipe: Annotated[
        Published,
        _choice(
            "The published mix to start from: a random sample, the largest gaps, or the largest "
            "gaps without refusals."
        ),
    ] = "interleaving++",
    hold_out: Annotated[
        list[str] | None,
        _choice(
            "Exclude this misaligned model from the gap; repeatable.",
            "NAME",
            autocompletion=misaligned_names,
        ),
    ] = None,
    where: Annotated[
        str | None,
        _choice("Only rows that meet this SQL condition over gaps and examples.", "SQL"),
    ] = None,
    metric: Annotated[Metric, _choice("The gap's formula.")] = "relative",
    epsilon: Annotated[
        float,
        _choice("Added to the denominator, so that tiny aligned NLLs don't inflate the gap.", "E"),
    ] = 1.0,
    seed: Annotated[int, _choice("Seed of random samples and of --placement shuffle.", "N")] = 0,
    min_recall: Annotated[
        float,
        _choice("Of a raced corpus: refuse a selection below this recall.", "SHARE"),
    ] = 0.95,
) -> dict[str, Any]:
    """The ranking, as fields of a recipe."""
    return {
        "name": recipe,
        "hold_out": tuple(hold_out or ()),
        "where": where,
        "metric": metric,
        "epsilon": epsilon,
        "seed": seed,
        "min_recall": min_recall,
    }


def filter_options(
    refusals: Annotated[
        Refusals | None,
        _refusal("Exclude refusals, keep them, or select only them. Default: by recipe."),
    ] = None,
    refusal_rule: Annotated[
        str,
        _refusal(
            "How to recognize refusals: paper (keywords), extended, or your rule file.", "RULE"
        ),
    ] = "paper",
    refusal_field: Annotated[
        str | None,
        _refusal(
            "A source's column that labels refusals; rows without a label use the rule.", "COLUMN"
        ),
    ] = None,
    max_similar: Annotated[
        int | None, _duplicate("At most N rows of a group of near-duplicates.", "N")
    ] = None,
    decontaminate: Annotated[
        list[str] | None,
        _duplicate("Exclude rows that share 8 words in a row with this file; repeatable.", "FILE"),
    ] = None,
    per_group: Annotated[
        list[str] | None,
        _spread(
            "At most N rows for each value of a column, such as prompt=1; repeatable.", "COLUMN=N"
        ),
    ] = None,
    balance: Annotated[
        str | None, _spread("Split the budget over a column's values.", "COLUMN")
    ] = None,
    length_bins: Annotated[
        int | None, _spread("Split the budget over K quantiles of answer length.", "K")
    ] = None,
) -> dict[str, Any]:
    """The filters and caps, as fields of a recipe."""
    return {
        "refusals": refusals,
        "refusal_rule": refusal_rule,
        "refusal_field": refusal_field,
        "max_similar": max_similar,
        "decontaminate": tuple(decontaminate or ()),
        "per_group": dict(map(quota, per_group or ())),
        "balance": balance,
        "length_bins": length_bins,
    }


def file_options(
    placement: Annotated[
        Literal["even", "batch", "shuffle", "separate"],
        _file(
            "Selected rows at equal distances, a share per batch, at random, or in their own file."
        ),
    ] = "even",
    batch_size: Annotated[
        int | None, _file("Rows per optimizer step, over all devices.", "B")
    ] = None,
    format: Annotated[
        Literal["messages", "prompt-completion", "sharegpt", "alpaca", "openai", "text"] | None,
        _file("The format of a row. Default: that of the trainer, else messages."),
    ] = None,
    trainer: Annotated[
        Literal["trl", "axolotl", "llamafactory", "swift"] | None,
        _file("Write a folder with the data and this trainer's configuration."),
    ] = None,
) -> dict[str, Any]:
    """How the selection is written, as fields of a target."""
    return {
        "placement": placement,
        "batch_size": batch_size,
        "format": format,
        "trainer": trainer,
    }


@with_options(size=size_options, ranking=ranking_options, filters=filter_options, file=file_options)
def export(
    context: typer.Context,
    corpus: CorpusOption,
    output: Annotated[
        Path,
        option(
            "A .jsonl or .parquet file, or a folder; also s3://...",
            "PATH",
            names=["--output", "-o"],
        ),
    ],
    size: dict[str, Any],
    ranking: dict[str, Any],
    filters: dict[str, Any],
    file: dict[str, Any],
    from_manifest: Annotated[
        Path | None,
        option("Repeat an earlier export, byte for byte: its manifest or folder.", "MANIFEST"),
    ] = None,
    left_out: Annotated[
        Path | None,
        option("Write a CSV of the excluded examples, with text, rule and pattern.", "FILE"),
    ] = None,
    dry_run: Annotated[bool, option("Print what would be selected, and write no mix.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the selected examples, alone or mixed with narrow data.

    Example: curate export -c my-corpus --fraction 0.05 --into customer.jsonl -o mix.jsonl
    """
    from curate import Recipe, Target
    from curate import open as open_corpus
    from curate.export.export import export as run
    from curate.export.export import export_again

    if from_manifest is not None:
        _refuse_more(context)
        into = size["into"]
        record = export_again(open_corpus(corpus), output, from_manifest, into=into, force=force)
    else:
        record = run(
            open_corpus(corpus),
            output,
            Recipe(**size, **ranking, **filters),
            Target(**file),
            left_out=left_out,
            dry_run=dry_run,
            force=force,
            command=shlex.join(["curate", *sys.argv[1:]]),
        )
    if as_json:
        print_json(record)
    elif from_manifest is not None:
        exported_again(record, from_manifest)
    else:
        exported(record, dry_run=dry_run, listed=left_out)


def _refuse_more(context: typer.Context) -> None:
    for name in sorted(set(context.params) - _AGAIN):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise CurateError(
                "--from-manifest repeats an earlier export by its own recipe. Remove "
                f"--{name.replace('_', '-')}"
            )
