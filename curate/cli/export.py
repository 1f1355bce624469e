"""`curate export`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli.options import (
    CorpusOption,
    EpsilonOption,
    ForceOption,
    Format,
    HoldOutOption,
    JsonOption,
    Metric,
    Placement,
    Published,
    Refusals,
    Shares,
    Strategy,
    Trainer,
)
from curate.cli.tables import clean, print_json
from curate.errors import CurateError

_AGAIN = {"corpus", "output", "from_manifest", "force", "as_json"}


def export(
    context: typer.Context,
    corpus: CorpusOption,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A .jsonl or .parquet file, or a folder.", metavar="PATH"
        ),
    ],
    top: Annotated[int | None, typer.Option(help="Take the N best examples.", metavar="N")] = None,
    fraction: Annotated[
        float | None,
        typer.Option(help="Safe rows as a share of the narrow set's: 0.05 is 5 %.", metavar="F"),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(help="The narrow set, any input format: write the mix.", metavar="NARROW"),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Take answers of N tokens together, and no more.", metavar="N"),
    ] = None,
    recipe: Annotated[
        Published, typer.Option(help="The published mix to start from.")
    ] = Published.interleaving_plus_plus,
    strategy: Annotated[
        Strategy | None, typer.Option(help="The largest gaps, or a random draw.")
    ] = None,
    refusals: Annotated[
        Refusals | None, typer.Option(help="Leave refusals out, keep them, or take them alone.")
    ] = None,
    refusal_rule: Annotated[
        str,
        typer.Option(
            help="What a refusal is: paper, extended, or a rule file of yours.", metavar="RULE"
        ),
    ] = "paper",
    refusal_field: Annotated[
        str | None,
        typer.Option(
            help="The source's own label column; the rule where it is empty.", metavar="COLUMN"
        ),
    ] = None,
    refusal_share: Annotated[
        float, typer.Option(help="Keep this share of the refusals that are dropped.", metavar="S")
    ] = 0.0,
    max_similar: Annotated[
        int | None, typer.Option(help="At most N rows of a group of near-copies.", metavar="N")
    ] = None,
    per_prompt: Annotated[
        int | None, typer.Option(help="At most N answers to the same prompt.", metavar="N")
    ] = None,
    per_group: Annotated[
        list[str] | None,
        typer.Option(
            help="At most N rows of each value of a column, or of each source; repeatable.",
            metavar="COLUMN=N",
        ),
    ] = None,
    balance: Annotated[
        str | None, typer.Option(help="Spread the budget over a column's values.", metavar="COLUMN")
    ] = None,
    length_bins: Annotated[
        int | None,
        typer.Option(help="Spread the budget over K quantiles of answer length.", metavar="K"),
    ] = None,
    length_shares: Annotated[
        Shares, typer.Option(help="The same for each length bin, or by the rows it has.")
    ] = Shares.even,
    decontaminate: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out what shares 8 words in a row with this file; repeatable.",
            metavar="FILE",
        ),
    ] = None,
    metric: Annotated[Metric, typer.Option(help="The gap's formula.")] = Metric.relative,
    epsilon: EpsilonOption = 1.0,
    hold_out: HoldOutOption = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="What may be taken, over the columns of gaps and examples.", metavar="SQL"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of --strategy random and --placement shuffle.", metavar="N")
    ] = 0,
    placement: Annotated[
        Placement,
        typer.Option(help="Safe rows at equal distances, per batch, at random, or apart."),
    ] = Placement.even,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows an optimiser step, all devices together.", metavar="B")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="What a row looks like; the trainer's own by default.")
    ] = None,
    trainer: Annotated[
        Trainer | None, typer.Option(help="Write a folder that this trainer trains on as it is.")
    ] = None,
    from_manifest: Annotated[
        Path | None,
        typer.Option(
            help="Make the files of an earlier export again, byte for byte.", metavar="MANIFEST"
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the best safe examples, or their mix with a narrow set.

    Example: curate export -c my-corpus --fraction 0.05 --into customer.jsonl -o mix.jsonl
    """
    from curate import Recipe, Target
    from curate import open as open_corpus
    from curate.export.export import export as run
    from curate.export.export import export_again
    from curate.selection.recipe import quota

    if from_manifest is not None:
        _refuse_more(context)
        record = export_again(open_corpus(corpus), output, from_manifest, force=force)
    else:
        changes: dict[str, Any] = {
            "strategy": strategy and strategy.value,
            "refusals": refusals and refusals.value,
        }
        chosen = Recipe.named(
            recipe.value,
            top=top,
            fraction=fraction,
            tokens=tokens,
            into=into,
            metric=metric.value,
            epsilon=epsilon,
            hold_out=tuple(hold_out or ()),
            where=where,
            seed=seed,
            refusal_rule=refusal_rule,
            refusal_field=refusal_field,
            refusal_share=refusal_share,
            max_similar=max_similar,
            per_prompt=per_prompt,
            per_group=dict(quota(text) for text in per_group or ()),
            balance=balance,
            length_bins=length_bins,
            length_shares=length_shares.value,
            decontaminate=tuple(decontaminate or ()),
            **{name: value for name, value in changes.items() if value is not None},
        )
        target = Target(
            placement=placement.value,
            batch_size=batch_size,
            format=None if format is None else format.value,
            trainer=None if trainer is None else trainer.value,
        )
        command = shlex.join(["curate", *sys.argv[1:]])
        record = run(open_corpus(corpus), output, chosen, target, force=force, command=command)
    if as_json:
        print_json(record)
    elif from_manifest is not None:
        exported_again(record, from_manifest)
    else:
        exported(record)


def _refuse_more(context: typer.Context) -> None:
    """Beside --from-manifest an option of the recipe would be passed over in silence."""
    for name in sorted(set(context.params) - _AGAIN):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise CurateError(
                "--from-manifest makes an earlier export again, by its own recipe: leave out "
                f"--{name.replace('_', '-')}"
            )


_PLACED = {
    "even": "placed evenly",
    "batch": "every batch holds its share",
    "shuffle": "at random places",
    "separate": "in a file of their own",
}


def exported(record: dict[str, Any]) -> None:
    """What `curate export` wrote, with both denominators of the share."""
    counts, narrow, cut = record["counts"], record["narrow"], record["cut"]
    path = record["output"]["path"]
    print(f"{path}: {record['output']['rows']:,} rows, {counts['safe']:,} of them safe examples")
    if narrow:
        print(
            f"  {counts['share_of_narrow']:.2%} of the narrow set's {narrow['rows']:,} rows, "
            f"{counts['share_of_mix']:.2%} of the mix; {_PLACED[record['target']['placement']]}"
        )
        _trained(record["trained"])
    _selected(counts)
    if cut["inside_noise"]:
        print(
            f"  the cut lies inside numerical noise ({cut['noise']} nats): the last row taken and "
            "the first left out could change places on another machine"
        )
    for note in record["notes"]:
        print(f"  {clean(note)}")
    _beside(record["output"])


def exported_again(record: dict[str, Any], manifest: Path) -> None:
    """What `--from-manifest` wrote, as it was found: what a manifest says more may be anybody's."""
    output = record["output"]
    safe = len(record["safe"])
    print(f"{output['path']}: {output['rows']:,} rows, {safe:,} of them safe examples")
    print(f"  the same bytes as {manifest} records")
    for note in record["notes"]:
        print(f"  {clean(note)}")
    _beside(output)


def _beside(output: dict[str, Any]) -> None:
    """The files beside the rows, and how to train on them."""
    path = output["path"]
    beside = f"{path}/" if "README.md" in output["files"] else f"{path}."
    print(f"{beside}manifest.json: how it was made, and which rows are safe")
    if output["left_out"]:
        print(f"{beside}left-out.csv: which rows were met and not taken, and why")
    if output["run"]:
        print(f"Train:  cd {shlex.quote(path)} && {output['run']}")


def _selected(counts: dict[str, Any]) -> None:
    """What could not be ranked, whether the budget is met, and what the rules left out."""
    if counts["unranked"]:
        print(
            f"  {counts['unranked']:,} of {counts['ranked'] + counts['unranked']:,} examples are "
            "not ranked: not every model has scored them; see curate status, curate sql skips"
        )
    wanted, safe = counts["wanted"], counts["safe"]
    if counts["wanted_tokens"] is not None:
        wanted, safe = counts["wanted_tokens"], counts["safe_tokens"]
        print(f"  {safe:,} answer tokens of the {wanted:,} asked for")
    elif safe < wanted:
        print(
            f"  {wanted - safe:,} fewer than the {wanted:,} asked for: of {counts['ranked']:,} "
            "ranked no more are eligible"
        )
    if counts["left_out"]["where"]:
        eligible = counts["ranked"] - counts["left_out"]["where"]
        print(f"  --where leaves {eligible:,} of the {counts['ranked']:,} ranked")
    others = [(rule, count) for rule, count in counts["left_out"].items() if rule != "where"]
    left = [f"{clean(rule)} {count:,}" for rule, count in others if count]
    if left:
        print(f"  left out among the {counts['looked_at']:,} looked at: {', '.join(left)}")
    if counts["near_copies"]:
        copies = counts["near_copies"]
        what = "is a near-copy" if copies == 1 else "are near-copies"
        print(f"  {copies:,} {what} of a better one (--max-similar caps them)")


def _trained(trained: dict[str, Any]) -> None:
    """The realised share in what a trainer takes the loss on."""
    if trained["share_of_narrow"] is None:
        return
    why = f" ({clean(trained['why'])})" if trained["why"] else ""
    print(
        f"  of the {trained['unit']} trained on, {trained['share_of_narrow']:.2%} of the narrow "
        f"set's {trained['narrow']:,}, {trained['share_of_mix']:.2%} of the mix{why}"
    )
