"""`curate answer`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import (
    Compute,
    JsonOption,
    QuietOption,
    compute_options,
    encoding_options,
    option,
    progress,
    reading_options,
    with_options,
)
from curate.cli.progress import kept
from curate.cli.tables import clean, count, print_json
from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.answering.answer import Summary

_writing = partial(option, panel="What is written")


@with_options(reading=reading_options, encoding=encoding_options, compute=compute_options)
def answer(
    *,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Files, folders, globs or hf:// as in `score`."),
    ],
    model: Annotated[str, option("A folder or Hub id, full or a PEFT adapter.", "[NAME=]MODEL")],
    output: Annotated[
        Path, option("A folder, or a .jsonl or .parquet file.", "ANSWERS", names=["--output", "-o"])
    ],
    base: Annotated[
        str | None, option("The model under an adapter. Default: the one it names.", "MODEL")
    ] = None,
    max_tokens: Annotated[int, _writing("Maximum tokens of an answer.", "N")] = 512,
    temperature: Annotated[
        float, _writing("0 takes the likeliest token; above 0, tokens are drawn.", "T")
    ] = 0.0,
    samples: Annotated[int, _writing("Answers per prompt.", "N")] = 1,
    seed: Annotated[int, _writing("The seed of the drawn tokens.", "N")] = 0,
    reading: dict[str, Any],
    encoding: dict[str, Any],
    compute: Compute,
    dry_run: Annotated[
        bool, option("Write nothing; estimate tokens and time.", names=["--dry-run"])
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a model answer a pool's prompts; run it again to resume.

    Example: curate answer data.jsonl --model ./chat --max-tokens 64 -o my-answers
    """
    from curate.answering.answer import answer as run

    stored = "answers so far are kept. To resume, run the same command again"
    with kept(lambda: f"{stored} ({output})"):
        done = run(
            sources,
            output,
            model=model,
            base_model=base,
            max_tokens=max_tokens,
            temperature=temperature,
            samples=samples,
            seed=seed,
            dry_run=dry_run,
            **reading,
            **encoding,
            compute=compute,
            progress=progress(quiet or as_json),
        )
    if as_json:
        print_json(asdict(done))
    elif dry_run:
        _print_plan(done)
    else:
        _print_done(done)
    if done.empty:
        raise CurateError("; ".join(done.empty))
    if done.refused and not (done.answers or done.known or dry_run):
        raise CurateError(f"no prompt could be answered: {_reasons(done.refused)}")


def _print_done(done: Summary) -> None:
    """What a run wrote, what is wrong with it, and the next step."""
    speed = f", {done.tokens / done.seconds:,.0f} tokens/s" if done.tokens else ""
    print(
        f"{done.output}: {count(done.answers, 'answer')} to {count(done.prompts, 'new prompt')} "
        f"by {done.model}, {count(done.tokens, 'token')}{speed}; {_left(done)}"
    )
    for note in done.notes:
        print(clean(note))
    if done.skipped:
        print(clean(f"Rows skipped: {_reasons(done.skipped, done.places)}"))
    marks = [f"{done.marks[mark]:,} {mark}" for mark in ("refusal", "cut", "repeats", "empty")]
    print(f"Marked: {', '.join(marks)} (all but refusals are excluded from scoring and training)")
    if done.refused:
        print(clean(f"Without an answer: {_reasons(done.refused)}"))
    if done.answers and done.marks["cut"] + done.marks["repeats"] == done.answers:
        print("Every answer reached --max-tokens. Raise it, or check the end-of-turn token.")
    elif done.marks["cut"]:
        print("Cut answers reached --max-tokens. To keep them, raise it, with another --output.")
    if done.answers or done.known:
        print(f"Score old and new:  curate score SOURCE {shlex.quote(done.output)} -c CORPUS ...")


def _print_plan(done: Summary) -> None:
    print(
        f"{done.output}: {count(done.prompts, 'prompt')} to answer, {_left(done)}; nothing was "
        "written"
    )
    if done.skipped:
        print(clean(f"Rows skipped: {_reasons(done.skipped, done.places)}"))
    if (about := done.estimate) is None:
        print("Nothing is missing.")
        return
    print(f"About {about.prompt_tokens:,} tokens of prompts and {about.tokens:,} of answers")
    if about.seconds is None:
        print("No time estimate: a dry run does not fetch weights, and the model's are not here.")
    else:
        clock = timedelta(seconds=round(about.seconds))
        on = f" on {count(about.workers, 'worker')}" if about.workers > 1 else ""
        print(f"About {clock}{on}, by the first tokens of a sample. To start, remove --dry-run.")


def _left(done: Summary) -> str:
    skipped = count(done.skipped.total(), "row")
    return f"{done.known:,} already there or duplicates, {skipped} skipped"


def _reasons(counts: Counter[str], places: Mapping[str, str] | None = None) -> str:
    """Why rows or prompts have no answer, the most frequent reasons first."""
    found = []
    for reason, rows in counts.most_common(3):
        first = f" (first: {places[reason]})" if places else ""
        found.append(f"{rows:,} x {reason}{first}")
    return "; ".join(found)
