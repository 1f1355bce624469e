"""What each command says when it is done: results, and how to go on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.terminal.colouring import coloured
from curate.terminal.exported import exported
from curate.terminal.printing import clean, table
from curate.terminal.progress import clock

if TYPE_CHECKING:
    from curate.checks import Verdict
    from curate.demo import Demo
    from curate.queries import Query
    from curate.scoring import Summary
    from curate.storage.integrity import Damage


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


def planned(summary: Summary) -> None:
    """What a run of `curate score` would do, and about how long."""
    read = summary.read
    print(
        f"{summary.corpus}: {read.new:,} new examples, {read.known:,} already there or duplicates, "
        f"{read.skipped:,} rows would be skipped; nothing was written"
    )
    table(
        ["model", "role", "to score", "tokens, about", "time, about"],
        [
            [run.name, run.role, run.scored, run.tokens, clock(run.seconds)]
            for run in summary.models
        ],
    )
    total = sum(run.seconds for run in summary.models)
    if total:
        print(
            f"About {clock(total)} in all, by a sample timed on the first model that lacks "
            "anything; the others are taken to be as fast. Without --dry-run it is done."
        )
    else:
        print("Nothing is missing.")


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
    if any(model["missing"] for model in models):
        print("To score what is missing, from the folder where you scored:")
        print(
            clean(f"  curate score -c {shlex.quote(report['corpus'])} {shlex.join(_again(report))}")
        )
    if "damaged" in report:
        print("Every file is as it was written")


def damages(corpus: str, found: Sequence[Damage]) -> None:
    """What is damaged or missing, and what to do."""
    table(["file", "damage"], [[damage.path, damage.reason] for damage in found])
    print(
        clean(
            f"Move damaged files out of {corpus}, then run the same `curate score` again, sources "
            "included: it reads and computes what they held, and nothing else"
        )
    )


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
    if report["chat_template"]:
        options += ["--chat-template", report["chat_template"]]
    for key, value in (settings or {}).get("template_args", {}).items():
        options += ["--template-arg", f"{key}={json.dumps(value)}"]
    return options


def verdict(found: Verdict) -> None:
    """What `curate verify` tried, and whether the numbers can be relied on."""
    table(
        ["model", "check", "nats/token", "limit", "verdict"],
        [
            [c.model, c.what, f"{c.off:.1e}", f"{c.limit:.0e}", "ok" if c.passed else "FAILED"]
            for c in found.checks
        ],
    )
    failed = sum(not check.passed for check in found.checks)
    how = f"{found.rows:,} examples, {found.backend} in {found.dtype}"
    if failed:
        print(f"{failed} of {len(found.checks)} checks FAILED ({how}): don't rely on these scores")
    else:
        print(f"All {len(found.checks)} checks passed ({how})")


def verdict_record(found: Verdict) -> dict[str, Any]:
    """The same for machines."""
    return {"passed": found.passed, **asdict(found)}


def queries(found: Iterable[Query]) -> None:
    """The named queries, a line each."""
    from curate.queries import typed

    table(
        ["query", "what it answers", "parameters"],
        [
            [
                query.name,
                query.about,
                ", ".join(f"{k}={typed(v)}" for k, v in query.defaults.items()),
            ]
            for query in found
        ],
        wrap=True,
    )


def query(name: str, folder: Path | None) -> None:
    """A named query's SQL, or the columns of a view and what they hold."""
    from curate import queries as questions
    from curate.storage.views import described

    views = {} if name in questions.named(folder) else described()
    if name not in views:
        print(clean(questions.find(name, folder).text), end="")
        return
    about, columns = views[name]
    print(about)
    table(
        ["column", "type", "unit", "meaning"],
        [[column.name, column.type, column.unit, column.about] for column in columns],
        wrap=True,
    )


def models(found: list[dict[str, Any]]) -> None:
    """What is in a corpus, a line a model, with what identifies its numbers."""
    columns = ["model", "role", "reference", "dtype", "backend", "fingerprint"]
    table(columns, [[model[column] for column in columns] for model in found])
    if len({model["tokenizer"] for model in found}) > 1:
        print("Their tokenizers differ: gaps are in nats per byte.")
        table(["model", "tokenizer"], [[model["model"], model["tokenizer"]] for model in found])


def example(found: dict[str, Any]) -> None:
    """One example whole: the conversation, then its scores."""
    print(f"{clean(found['example_id'])}  {clean(found['source'])}, row {found['row']:,}")
    *prompt, answer = found["messages"]
    for message in prompt:
        print(f"\n[{clean(message['role'])}]\n{clean(message['content'])}")
    print(f"\n[{clean(answer['role'])}]")
    is_cut = any(score["truncated"] for score in found["scores"])
    if is_cut or not coloured(found["tokens"]):
        print(clean(answer["content"]))
    if found["meta"] not in (None, "{}"):
        print(f"\nother columns: {clean(found['meta'])}")
    if found["scores"]:
        columns = ["model", "role", "n_tokens", "nll", "truncated"]
        table(columns, [[score[column] for column in columns] for score in found["scores"]])
    for skip in found["skipped"]:
        print(clean(f"not scored by {skip['model']}: {skip['reason']}"))
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
