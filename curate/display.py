"""What each command says when it is done: results, and how to go on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from curate.printing import clean, table

if TYPE_CHECKING:
    from curate.demo import Demo
    from curate.queries import Query
    from curate.scoring import Summary


_PLACED = {
    "even": "placed evenly",
    "batch": "every batch holds its share",
    "shuffle": "at random places",
    "separate": "in a file of their own",
}


def scored(summary: Summary) -> None:
    """What a run of `curate score` did, and how to go on."""
    print(
        f"{summary.corpus}: {summary.read.new:,} new examples, "
        f"{summary.read.known:,} already there or duplicates, "
        f"{summary.read.skipped:,} rows skipped"
    )
    table(
        ["model", "role", "scored", "skipped", "truncated", "tokens", "tokens/s"],
        [
            [
                run.name,
                run.role,
                run.scored,
                run.skipped,
                run.truncated,
                run.tokens,
                round(run.tokens / run.seconds) if run.seconds else None,
            ]
            for run in summary.models
        ],
    )
    corpus = shlex.quote(summary.corpus)
    if summary.read.skipped or any(run.skipped for run in summary.models):
        print(f"Why rows were skipped:  curate sql skips -c {corpus}")
    print(f"Look at the ranking:    curate sql top_gaps -c {corpus}")
    print(f"Write a mix:            curate export -c {corpus} --fraction 0.05 --into NARROW -o MIX")


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
    folder = "README.md" in record["output"]["files"]
    manifest = f"{path}/manifest.json" if folder else f"{path}.manifest.json"
    print(f"{manifest}: how it was made, and which rows are safe")
    if record["output"]["run"]:
        print(f"Train:  cd {shlex.quote(path)} && {record['output']['run']}")


def _selected(counts: dict[str, Any]) -> None:
    """Whether the budget is met, and what the rules left out on the way."""
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
        print(
            f"  {counts['near_copies']:,} are near-copies of a better one (--max-similar caps them)"
        )


def _trained(trained: dict[str, Any]) -> None:
    """The realised share in what a trainer takes the loss on."""
    if trained["share_of_mix"] is None:
        return
    why = f" ({clean(trained['why'])})" if trained["why"] else ""
    print(
        f"  of the {trained['unit']} trained on, {trained['share_of_narrow']:.2%} of the narrow "
        f"set's {trained['narrow']:,}, {trained['share_of_mix']:.2%} of the mix{why}"
    )


def status(report: dict[str, Any]) -> None:
    """Per model scored, skipped and missing; what was skipped and why; how to complete it."""
    print(f"{report['corpus']}: {report['examples']:,} examples, {report['ranked']:,} ranked")
    models = report["models"]
    if models:
        table(list(models[0]), [list(model.values()) for model in models])
    if report["skipped"]:
        print("Skipped (the ten most frequent reasons; all: curate sql skips):")
        shown = ("skipped", "reason", "model", "source", "first_row")
        table(shown, [[entry[key] for key in shown] for entry in report["skipped"]])
    missing = [model for model in models if model["missing"]]
    if missing:
        print("To score what is missing (and --chat-template, if you gave one):")
        print(f"  curate score -c {shlex.quote(report['corpus'])} {shlex.join(_again(report))}")


def _again(report: dict[str, Any]) -> list[str]:
    """The options that score a corpus as it was scored."""
    options = []
    for model in report["models"]:
        name = model["model"]
        options += [f"--{model['role']}", f"{name}={report['references'][name]}"]
    settings = report["settings"]
    if settings and settings["answer_span"] != "turn":
        options += ["--answer-span", settings["answer_span"]]
    if settings and settings["max_length"] is not None:
        options += ["--max-length", str(settings["max_length"])]
    for key, value in (settings or {}).get("template_args", {}).items():
        options += ["--template-arg", f"{key}={json.dumps(value)}"]
    return options


def queries(found: Iterable[Query]) -> None:
    """The named queries, a line each."""
    table(
        ["query", "what it answers", "parameters"],
        [
            [query.name, query.about, ", ".join(f"{k}={v}" for k, v in query.defaults.items())]
            for query in found
        ],
    )


def example(found: dict[str, Any]) -> None:
    """One example whole: the conversation, then its scores."""
    print(f"{found['example_id']}  {clean(found['source'])}, row {found['row']:,}")
    for message in found["messages"]:
        print(f"\n[{clean(message['role'])}]\n{clean(message['content'])}")
    if found["meta"] not in (None, "{}"):
        print(f"\nother columns: {clean(found['meta'])}")
    if found["scores"]:
        columns = ["model", "role", "n_tokens", "nll", "truncated"]
        table(columns, [[score[column] for column in columns] for score in found["scores"]])
    for skip in found["skipped"]:
        print(f"not scored by {skip['model']}: {clean(skip['reason'])}")
    if found["gap"]:
        gap = found["gap"]
        kept = f", {gap['rank_kept']:,} without refusals" if gap["rank_kept"] else " (a refusal)"
        print(f"gap {gap['gap']:.4f} from {gap['unit']}, rank {gap['rank']:,}{kept}")


def demo(made: Demo) -> None:
    """What the demo ran, the top of its ranking and what it wrote."""
    print("What ran:")
    for command in made.commands:
        print(f"  {command}")
    scored_rows = sum(run.scored for run in made.summary.models)
    print(
        f"\n{made.summary.read.new:,} examples read, {scored_rows:,} scores computed "
        "(a second run computes none)"
    )
    table(made.columns, made.top, title="Easy for the aligned model, hard for the misaligned ones")
    exported(made.export)
    corpus = shlex.quote(made.summary.corpus)
    print(
        f"{made.summary.corpus}: the scored corpus; ask it with `curate sql top_gaps -c {corpus}`"
    )
