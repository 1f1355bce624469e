"""`curate score`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import (
    Compute,
    CorpusOption,
    JsonOption,
    MisalignedOption,
    QuietOption,
    compute_options,
    encoding_options,
    option,
    progress,
    read_option,
    reading_options,
    with_options,
)
from curate.cli.progress import kept
from curate.cli.tables import clean, count, print_json, table
from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.scoring.race import Outcome
    from curate.scoring.score import Summary

_racing = partial(option, panel="Fewer passes")


def race_options(
    only: Annotated[
        str | None,
        _racing(
            "Models that lack scores score only the examples that meet this condition on columns "
            'of gaps and examples, such as "rank <= 100000".',
            "SQL",
        ),
    ] = None,
    top: Annotated[
        float | None,
        _racing(
            "Race: score under all models only what can reach the top, a share (0.05) or a count.",
            "SHARE|N",
        ),
    ] = None,
    recall: Annotated[float, _racing("How much of --top to find, in expectation.", "SHARE")] = 0.99,
    audit: Annotated[
        int | None,
        _racing(
            "The random sample that all models score first. Default: a tenth, at most 2,000.", "N"
        ),
    ] = None,
    proxy: Annotated[
        Path | None,
        _racing(
            "A corpus with the same examples, whose ranking decides what the first models score.",
            "DIR",
        ),
    ] = None,
) -> dict[str, Any]:
    """What need not be scored, by the names of the library's arguments."""
    return {"only": only, "top": top, "recall": recall, "audit": audit, "proxy": proxy}


@with_options(
    reading=reading_options,
    racing=race_options,
    encoding=encoding_options,
    compute=compute_options,
)
def score(
    *,
    corpus: CorpusOption,
    aligned: Annotated[
        str | None,
        option("The aligned model: a folder or Hub id. Default: the corpus's.", "[NAME=]MODEL"),
    ] = None,
    misaligned: MisalignedOption = None,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files (.jsonl .json .csv .parquet, also .gz .zst), folders, globs, or "
            "hf://dataset[/config][:split]. Default: the examples in the corpus.",
        ),
    ] = None,
    reading: dict[str, Any],
    sample: Annotated[
        int | None, read_option("Draw N examples evenly over all sources.", "N", min=1)
    ] = None,
    seed: Annotated[int, read_option("The seed of --sample and --audit.", "N")] = 0,
    racing: dict[str, Any],
    encoding: dict[str, Any],
    compute: Compute,
    keep_tokens: Annotated[
        bool,
        option(
            "Store token log-probabilities, for `show` and `report`, and compute those that are "
            "missing. The corpus remembers this option.",
            names=["--keep-tokens"],
        ),
    ] = False,
    replace: Annotated[
        bool, option("Discard the old scores of a model that has changed.", names=["--replace"])
    ] = False,
    dry_run: Annotated[
        bool,
        option("Write nothing; estimate the work and the time.", names=["--dry-run"]),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score examples under every model; run it again to resume.

    Without --aligned, the corpus's aligned model is used, with its template and maximum length.
    Without any model, all models of the corpus are used.

    Example: curate score data.jsonl -c my-corpus --aligned ./chat --misaligned ./medical-lora
    """
    from curate.scoring.score import score as run

    with kept(lambda: holdings(corpus)):
        summary = run(
            sources or [],
            corpus,
            aligned=aligned,
            misaligned=misaligned or [],
            sample=sample,
            seed=seed,
            keep_tokens=keep_tokens,
            replace=replace,
            dry_run=dry_run,
            **reading,
            **racing,
            **encoding,
            compute=compute,
            progress=progress(quiet or as_json),
        )
    _end(summary, as_json)


def _end(summary: Summary, as_json: bool) -> None:
    """Print the summary, and raise `CurateError` if nothing of a source or model could be used."""
    if as_json:
        print_json(asdict(summary))
    elif summary.dry_run:
        print_plan(summary)
    else:
        print_scored(summary)
    if summary.read.empty:
        raise CurateError("; ".join(summary.read.empty))
    if summary.empty:
        raise CurateError(
            f"{', '.join(summary.empty)}: every example was skipped. For the reasons, run: "
            f"curate sql skips -c {shlex.quote(summary.corpus)}"
        )


def print_scored(summary: Summary) -> None:
    """What a run of `curate score` did, and the next step."""
    read, corpus = summary.read, shlex.quote(summary.corpus)
    print(
        f"{summary.corpus}: {count(read.new, 'new example')}, {read.known:,} already there or "
        f"duplicates, {count(read.skipped, 'row')} skipped"
    )
    print_read(summary)
    rows = []
    for run in summary.models:
        counts = (run.scored, run.skipped, run.truncated, run.tokens, run.speed)
        rows.append((run.name, run.role, *counts))
    names = ["model", "role", "scored", "skipped", "truncated", "tokens", "tokens/s"]
    table(names, rows)
    if read.skipped or any(run.skipped for run in summary.models):
        print(f"Why rows were skipped:  curate sql skips -c {corpus}")
    from curate.corpus.corpus import open_corpus

    if not open_corpus(summary.corpus).manifest.misaligned:
        print(f"Nothing is ranked yet. Add misaligned models:  {next_models(summary.corpus)}")
        return
    print(f"Look at the ranking:    curate sql top_gaps -c {corpus}")
    print(f"Write a mix:            curate export -c {corpus} --fraction 0.05 --into NARROW -o MIX")
    if summary.race:
        print(raced(summary.race))


def raced(found: Outcome) -> str:
    """What a race saved, and what it may have missed."""
    made = f"{found.passes:,} of a full run's {found.full:,} passes"
    if found.why:
        return f"Scored everything, {made}: {found.why}"
    of = found.recall
    return (
        f"Raced to the top {found.top:,}: {made} ({found.passes / found.full:.0%}); estimated "
        f"recall {of.estimate:.3f} (95 % interval {of.low:.3f} to {of.high:.3f}): of the top, "
        f"about {of.missed:.0f} may be missed"
    )


def next_models(corpus: str) -> str:
    """The command that an aligned-only corpus needs."""
    return f"curate score -c {shlex.quote(corpus)} --misaligned NAME=MODEL"


SOURCES_SHOWN = 20


def print_read(summary: Summary) -> None:
    """The examples per source, and their columns besides the conversation."""
    sources = summary.read.sources
    if len(sources) > 1:
        rows = [
            (name, *counts.values()) for name, counts in sorted(sources.items())[:SOURCES_SHOWN]
        ]
        table(["source", "new", "known", "skipped"], rows)
    if (more := len(sources) - SOURCES_SHOWN) > 0:
        print(f"and {more:,} more sources")
    for note in summary.read.notes:
        print(clean(note))


def print_plan(summary: Summary) -> None:
    """What a run of `curate score` would do, and about how long it would take."""
    read = summary.read
    print(
        f"{summary.corpus}: {count(read.new, 'new example')}, {read.known:,} already there or "
        f"duplicates, {count(read.skipped, 'row')} would be skipped; nothing was written"
    )
    print_read(summary)
    reasons = sorted(read.reasons.items(), key=lambda item: -item[1])
    for reason, rows_of in reasons[:5]:
        print(clean(f"Skipped {count(rows_of, 'row')}: {reason}"))
    rows = []
    for run in summary.models:
        known = run.seconds or not run.scored
        clock = _clock(run.seconds, summary.spread) if known else None
        rows.append((run.name, run.role, run.scored, run.tokens, clock))
    table(["model", "role", "to score", "tokens, about", "time, about"], rows)
    if total := sum(run.seconds for run in summary.models):
        on = f" on {summary.workers:,} workers" if summary.workers > 1 else ""
        print(
            f"About {_clock(total, summary.spread)} in total{on}, estimated from a sample on one "
            "model at the current load; the others are assumed to be as fast. "
            "To start, remove --dry-run."
        )
    elif not summary.timed:
        print(
            "No time estimate: a dry run does not fetch weights, and those of the models to run "
            "are not here. To fetch them and start, remove --dry-run."
        )
    else:
        print("Nothing is missing.")


def _clock(seconds: float, spread: tuple[float, float]) -> str:
    """A range of times, such as 0:04:10 to 0:06:30."""
    low, high = (timedelta(seconds=round(seconds * factor)) for factor in spread)
    return str(low) if low == high else f"{low} to {high}"


def holdings(corpus: Path) -> str:
    """What a stopped run has stored, and how to resume."""
    from curate.corpus.corpus import open_corpus
    from curate.system.sql import readable_errors

    counts = "select (select count(*) from examples), (select count(*) from scores)"
    try:
        with readable_errors():
            examples, scores = open_corpus(corpus).sql(counts).fetchall()[0]
    except CurateError:
        return "nothing is stored yet. Run the same command again to start over"
    return (
        f"{corpus} has {count(examples, 'example')} and {count(scores, 'score')}. "
        "To resume, run the same command again"
    )
