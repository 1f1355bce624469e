"""How `curate export` says what it wrote and what it left out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from curate.terminal.printing import clean

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
