"""`curate score`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from curate.cli.options import (
    COLUMN,
    LAYOUTS,
    AlignedOption,
    CorpusOption,
    MisalignedOption,
    Shared,
    columns,
    option,
    with_shared_options,
)
from curate.cli.tables import clean, print_json, table
from curate.errors import CurateError
from curate.system.stopping import Stopped, asked

if TYPE_CHECKING:
    from curate.scoring.score import Summary

_READ = "What is read"


@with_shared_options
def score(
    shared: Shared,
    corpus: CorpusOption,
    aligned: AlignedOption,
    misaligned: MisalignedOption = None,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files (.jsonl .json .csv .parquet, also .gz .zst), folders, globs, or "
            "hf://dataset[/config][:split]. Default: the examples in the corpus.",
        ),
    ] = None,
    where: Annotated[
        str | None, option("SQL over the source's own columns: which rows to read.", "SQL", _READ)
    ] = None,
    limit: Annotated[int | None, option("Read at most N examples.", "N", _READ, min=1)] = None,
    turns: Annotated[
        Literal["last", "all"],
        option("Score the last assistant turn, or make an example of each.", None, _READ),
    ] = "last",
    column: Annotated[
        list[str] | None,
        option(COLUMN, "ROLE=NAME", _READ),
    ] = None,
    layouts: Annotated[str | None, option(LAYOUTS, "FILE", _READ)] = None,
    strict: Annotated[
        bool,
        option("Stop at the first broken row; default: skip it.", panel=_READ, names=["--strict"]),
    ] = False,
    keep_tokens: Annotated[
        bool,
        option("Store token log-probs, for `show` and `report`.", names=["--keep-tokens"]),
    ] = False,
    replace: Annotated[
        bool, option("Discard the scores of a model that changed.", names=["--replace"])
    ] = False,
    dry_run: Annotated[
        bool,
        option("Write nothing; say what would be computed and how long.", names=["--dry-run"]),
    ] = False,
) -> None:
    """Score examples under every model; run it again to resume.

    Example: curate score data.jsonl -c my-corpus --aligned ./chat --misaligned ./medical-lora
    """
    from curate.scoring.score import score as run

    with kept(corpus):
        summary = run(
            sources or [],
            corpus,
            aligned=aligned,
            misaligned=misaligned or [],
            columns=columns(column),
            layouts=layouts,
            where=where,
            limit=limit,
            turns=turns,
            strict=strict,
            keep_tokens=keep_tokens,
            replace=replace,
            dry_run=dry_run,
            **shared.encoding,
            **shared.compute,
            progress=shared.progress,
        )
    if shared.as_json:
        print_json(asdict(summary))
    elif dry_run:
        print_plan(summary)
    else:
        print_scored(summary)
    if summary.read.empty:
        raise CurateError("; ".join(summary.read.empty))
    if summary.empty:
        raise CurateError(
            f"{', '.join(summary.empty)}: no example could be scored, all were skipped; "
            f"`curate sql skips -c {shlex.quote(str(corpus))}` says why"
        )


def print_scored(summary: Summary) -> None:
    """What a run of `curate score` did, and how to go on."""
    read, corpus = summary.read, shlex.quote(summary.corpus)
    print(
        f"{summary.corpus}: {read.new:,} new examples, {read.known:,} already there or duplicates, "
        f"{read.skipped:,} rows skipped"
    )
    print_notes(summary)
    rows = []
    for run in summary.models:
        speed = round(run.tokens / run.seconds) if run.seconds else None
        rows.append((run.name, run.role, run.scored, run.skipped, run.truncated, run.tokens, speed))
    names = ["model", "role", "scored", "skipped", "truncated", "tokens", "tokens/s"]
    table(names, rows)
    if read.skipped or any(run.skipped for run in summary.models):
        print(f"Why rows were skipped:  curate sql skips -c {corpus}")
    print(f"Look at the ranking:    curate sql top_gaps -c {corpus}")
    print(f"Write a mix:            curate export -c {corpus} --fraction 0.05 --into NARROW -o MIX")


def print_notes(summary: Summary) -> None:
    """What the sources hold beside their conversations."""
    for note in summary.read.notes:
        print(clean(note))


def print_plan(summary: Summary) -> None:
    """What a run of `curate score` would do, and about how long."""
    read = summary.read
    print(
        f"{summary.corpus}: {read.new:,} new examples, {read.known:,} already there or duplicates, "
        f"{read.skipped:,} rows would be skipped; nothing was written"
    )
    print_notes(summary)
    rows = []
    for run in summary.models:
        known = run.seconds or not run.scored
        clock = timedelta(seconds=round(run.seconds)) if known else None
        rows.append((run.name, run.role, run.scored, run.tokens, clock))
    table(["model", "role", "to score", "tokens, about", "time, about"], rows)
    if total := sum(run.seconds for run in summary.models):
        print(
            f"About {timedelta(seconds=round(total))} in all, by a sample timed on the first model "
            "that lacks anything; the others are assumed to be as fast. To run it, drop --dry-run."
        )
    elif not summary.timed:
        print(
            "No time is estimated: a dry run fetches no weights, and those of models that lack "
            "anything are not here. To fetch and run them, drop --dry-run."
        )
    else:
        print("Nothing is missing.")


@contextmanager
def kept(corpus: Path) -> Iterator[None]:
    """Around a run that fills a corpus: a stop says what is stored and how to go on."""
    try:
        yield
    except BaseException:
        if (number := asked()) is None:
            raise
        raise Stopped(number, f"Stopped: {_holdings(corpus)}") from None


def _holdings(corpus: Path) -> str:
    from curate.corpus.corpus import open_corpus
    from curate.system.sql import readable_errors

    counts = "select (select count(*) from examples), (select count(*) from scores)"
    try:
        with readable_errors():
            examples, scores = open_corpus(corpus).sql(counts).fetchall()[0]
    except CurateError:
        return "nothing is stored yet; run the same command again to start over"
    return (
        f"{corpus} keeps {examples:,} examples and {scores:,} scores; "
        "run the same command again to go on"
    )
