"""`curate export`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from curate.cli.completion import misaligned_names
from curate.cli.options import (
    COLUMN,
    LAYOUTS,
    CorpusOption,
    ForceOption,
    JsonOption,
    columns,
    option,
)
from curate.cli.tables import clean, count, print_json, records
from curate.errors import CurateError
from curate.selection.recipe import Metric, Published, Refusals, quota, share

_AGAIN = {"corpus", "output", "into", "from_manifest", "force", "as_json"}
_SOURCES = 20
"""The most lines in the composition that a dry run prints."""
_BUDGET, _CHOICE, _REFUSALS = "Size (give one)", "Selection", "Refusals"
_DUPLICATES, _SPREAD, _FILES = "Duplicates and contamination", "Spread", "Mix and files"


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
    top: Annotated[int | None, option("Select the N best examples.", "N", _BUDGET)] = None,
    fraction: Annotated[
        float | None,
        option(
            "Select this share of the narrow dataset's rows: 0.05 or 5%.",
            "F",
            _BUDGET,
            parser=share,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        option("Stop before the first answer that would exceed N tokens in total.", "N", _BUDGET),
    ] = None,
    into: Annotated[
        str | None, option("The narrow dataset to mix into, in any input format.", "NARROW")
    ] = None,
    column: Annotated[
        list[str] | None, option(f"For the narrow dataset. {COLUMN}", "ROLE=NAME", _FILES)
    ] = None,
    layouts: Annotated[
        str | None, option(f"For the narrow dataset. {LAYOUTS}", "FILE", _FILES)
    ] = None,
    recipe: Annotated[
        Published,
        option(
            "The published mix to start from: a random sample, the largest gaps, or the largest "
            "gaps without refusals.",
            None,
            _CHOICE,
        ),
    ] = "interleaving++",
    hold_out: Annotated[
        list[str] | None,
        option(
            "Exclude this misaligned model from the gap; repeatable.",
            "NAME",
            _CHOICE,
            autocompletion=misaligned_names,
        ),
    ] = None,
    where: Annotated[
        str | None,
        option("Only rows that meet this SQL condition over gaps and examples.", "SQL", _CHOICE),
    ] = None,
    metric: Annotated[Metric, option("The gap's formula.", None, _CHOICE)] = "relative",
    epsilon: Annotated[
        float,
        option(
            "Added to the denominator, so that tiny aligned NLLs don't inflate the gap.",
            "E",
            _CHOICE,
        ),
    ] = 1.0,
    seed: Annotated[
        int, option("Seed of random samples and of --placement shuffle.", "N", _CHOICE)
    ] = 0,
    refusals: Annotated[
        Refusals | None,
        option(
            "Exclude refusals, keep them, or select only them. Default: by recipe.", None, _REFUSALS
        ),
    ] = None,
    refusal_rule: Annotated[
        str,
        option(
            "How to recognize refusals: paper (keywords), extended, or your rule file.",
            "RULE",
            _REFUSALS,
        ),
    ] = "paper",
    refusal_field: Annotated[
        str | None,
        option(
            "A source's column that labels refusals; rows without a label use the rule.",
            "COLUMN",
            _REFUSALS,
        ),
    ] = None,
    max_similar: Annotated[
        int | None, option("At most N rows of a group of near-duplicates.", "N", _DUPLICATES)
    ] = None,
    decontaminate: Annotated[
        list[str] | None,
        option(
            "Exclude rows that share 8 words in a row with this file; repeatable.",
            "FILE",
            _DUPLICATES,
        ),
    ] = None,
    per_group: Annotated[
        list[str] | None,
        option(
            "At most N rows for each value of a column, such as prompt=1; repeatable.",
            "COLUMN=N",
            _SPREAD,
        ),
    ] = None,
    balance: Annotated[
        str | None, option("Split the budget over a column's values.", "COLUMN", _SPREAD)
    ] = None,
    length_bins: Annotated[
        int | None, option("Split the budget over K quantiles of answer length.", "K", _SPREAD)
    ] = None,
    min_recall: Annotated[
        float,
        option("Of a raced corpus: refuse a selection below this recall.", "SHARE", _CHOICE),
    ] = 0.95,
    placement: Annotated[
        Literal["even", "batch", "shuffle", "separate"],
        option(
            "Selected rows at equal distances, a share per batch, at random, or in their own file.",
            None,
            _FILES,
        ),
    ] = "even",
    batch_size: Annotated[
        int | None, option("Rows per optimizer step, over all devices.", "B", _FILES)
    ] = None,
    format: Annotated[
        Literal["messages", "prompt-completion", "sharegpt", "alpaca", "openai", "text"] | None,
        option("The format of a row. Default: that of the trainer, else messages.", None, _FILES),
    ] = None,
    trainer: Annotated[
        Literal["trl", "axolotl", "llamafactory", "swift"] | None,
        option("Write a folder with the data and this trainer's configuration.", None, _FILES),
    ] = None,
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
        record = export_again(open_corpus(corpus), output, from_manifest, into=into, force=force)
    else:
        given = context.params
        asked: dict[str, Any] = {f.name: given[f.name] for f in fields(Recipe) if f.name in given}
        asked |= {
            "name": recipe,
            "columns": columns(column),
            "hold_out": tuple(hold_out or ()),
            "decontaminate": tuple(decontaminate or ()),
            "per_group": dict(map(quota, per_group or ())),
        }
        chosen = Recipe(**asked)
        target = Target(placement, batch_size, format, trainer)
        command = shlex.join(["curate", *sys.argv[1:]])
        record = run(
            open_corpus(corpus),
            output,
            chosen,
            target,
            left_out=left_out,
            dry_run=dry_run,
            force=force,
            command=command,
        )
    if as_json:
        print_json(record)
    elif from_manifest is not None:
        exported_again(record, from_manifest)
    else:
        exported(record, dry_run=dry_run, listed=left_out)


def _refuse_more(context: typer.Context) -> None:
    """Reject options that have no effect with --from-manifest."""
    for name in sorted(set(context.params) - _AGAIN):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise CurateError(
                "--from-manifest repeats an earlier export by its own recipe. Remove "
                f"--{name.replace('_', '-')}"
            )


_PLACED = {
    "even": "placed evenly",
    "batch": "every batch has its share",
    "shuffle": "in random places",
    "separate": "in their own file",
}


def exported(record: dict[str, Any], *, dry_run: bool = False, listed: Path | None = None) -> None:
    """What `curate export` wrote or would write, with both denominators of the share."""
    counts, narrow, trained = record["counts"], record["narrow"], record["trained"]
    _written(record, "would have " if dry_run else "")
    print(clean(f"  {_chosen(record)}"))
    if narrow:
        print(
            f"  {counts['share_of_narrow']:.2%} of the narrow dataset's "
            f"{count(narrow['rows'], 'row')}, {counts['share_of_mix']:.2%} of the mix; "
            f"{_PLACED[record['target']['placement']]}"
        )
    if trained and trained["share_of_narrow"] is not None:
        why = f" ({clean(trained['why'])})" if trained["why"] else ""
        print(
            f"  of the {trained['unit']} trained on, {trained['share_of_narrow']:.2%} of the "
            f"narrow dataset's {trained['narrow']:,}, {trained['share_of_mix']:.2%} of the mix{why}"
        )
    _selected(record["recipe"], counts, listed)
    if record["cut"]["inside_noise"]:
        print(
            f"  the last row selected and the first one excluded differ by less than rounding "
            f"({record['cut']['noise']} nats): on another machine, they could swap places"
        )
    if not dry_run:
        _beside(record)
        return
    records(record["composition"][:_SOURCES], list(record["composition"][0]))
    if (more := len(record["composition"]) - _SOURCES) > 0:
        print(f"... and {count(more, 'more source')}")
    if Path(record["output"]["path"]).exists():
        print(f"{record['output']['path']} exists: to replace it, add --force")


def exported_again(record: dict[str, Any], manifest: Path) -> None:
    """What `--from-manifest` wrote, without the manifest's other claims, which nobody checked."""
    _written(record)
    print(f"  the same bytes as {manifest} records")
    _beside(record)


def _written(record: dict[str, Any], would: str = "") -> None:
    output, safe = record["output"], len(record["safe"])
    print(
        f"{output['path']}: {would}{count(output['rows'], 'row')}, {safe:,} of them selected "
        "examples"
    )


def _chosen(record: dict[str, Any]) -> str:
    """How the rows were ranked, and how refusals were treated."""
    recipe = record["recipe"]
    models = [name for name, entry in record["models"].items() if entry["role"] == "misaligned"]
    ensemble = ", ".join(name for name in models if name not in recipe["hold_out"])
    without = f", without {', '.join(recipe['hold_out'])}" if recipe["hold_out"] else ""
    epsilon = "" if recipe["metric"] == "difference" else f", ε {recipe['epsilon']:g}"
    by = f"ranked by the {recipe['metric']} gap of {ensemble}{without}{epsilon}"
    if recipe["name"] == "interleaving":
        by = f"drawn at random with seed {recipe['seed']}"
    rule = f"rule {recipe['refusal_rule']}"
    if recipe["refusal_field"]:
        rule = f"column {recipe['refusal_field']}, else {rule}"
    how = {"keep": "kept", "drop": f"excluded ({rule})", "only": f"only ({rule})"}
    return f"{by}; refusals {how[recipe['refusals']]}"


def _beside(record: dict[str, Any]) -> None:
    """The notes, the other files, and how to train on the rows."""
    for note in record["notes"]:
        print(f"  {clean(note)}")
    output = record["output"]
    path = output["path"]
    beside = f"{path}/" if "README.md" in output["files"] else f"{path}."
    print(f"{beside}manifest.json: the recipe, and which rows were selected")
    if output["run"] and "://" in path:
        print(f"Train, in a local copy:  {output['run']}")
    elif output["run"]:
        print(f"Train:  cd {shlex.quote(path)} && {output['run']}")


def _selected(recipe: dict[str, Any], counts: dict[str, Any], listed: Path | None) -> None:
    """What could not be ranked, whether the budget is met, and what the rules excluded."""
    ranked, left_out = counts["ranked"], counts["left_out"]
    if counts["unranked"]:
        print(
            f"  {counts['unranked']:,} of {ranked + counts['unranked']:,} examples are "
            "not ranked: not every model has scored them; see curate status, curate sql skips"
        )
    if found := counts["recall"]:
        print(
            f"  the corpus was raced: recall {found['estimate']:.3f} down to the last of these "
            f"(95 % interval {found['low']:.3f} to {found['high']:.3f})"
        )
    if (wanted := counts["wanted_tokens"]) is not None:
        print(f"  {counts['safe_tokens']:,} answer tokens of the {wanted:,} requested")
    elif counts["safe"] < counts["wanted"]:
        print(
            f"  only {counts['safe']:,} of the {counts['wanted']:,} requested: {ranked:,} "
            "are ranked, and no more are eligible"
        )
    if left_out["where"]:
        print(f"  --where leaves {ranked - left_out['where']:,} of the {ranked:,} ranked")
    names = {"refusals": "no refusals"} if recipe["refusals"] == "only" else {}
    rules = [
        f"{clean(names.get(rule, rule))} {n:,}"
        for rule, n in left_out.items()
        if n and rule != "where"
    ]
    if rules:
        print(
            f"  excluded from the {counts['looked_at']:,} considered: {', '.join(rules)}; "
            f"{listed or '--left-out FILE.csv'} lists them"
        )
    if (easier := counts["not_harder"]) and recipe["name"] != "interleaving":
        what = "is one row" if easier == 1 else f"are {easier:,} rows"
        print(f"  among them {what} with a gap of 0 or less: no harder for the misaligned models")
    if copies := counts["near_duplicates"]:
        what = "is a near-duplicate" if copies == 1 else "are near-duplicates"
        print(f"  {copies:,} {what} of a better one (--max-similar caps them)")
