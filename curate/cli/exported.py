"""What `curate export` prints about the files that it wrote."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from curate.cli.tables import clean, count, records
from curate.system import buckets

_SOURCES = 20
"""The most lines in the composition that a dry run prints."""
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
            f"({record['cut']['noise']} nats): scored again, they could swap places"
        )
    if not dry_run:
        _beside(record)
        return
    records(record["composition"][:_SOURCES], list(record["composition"][0]))
    if (more := len(record["composition"]) - _SOURCES) > 0:
        print(f"... and {count(more, 'more source')}")
    path = record["output"]["path"]
    exists = buckets.exists(path) if buckets.address_of(path) else Path(path).exists()
    if exists:
        print(f"{path} exists: to replace it, add --force")


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
    for condition in counts["only"]:
        print(
            f"  scored with --only {clean(repr(condition))}: how many of the examples that it left "
            "out would be among these is not known"
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
