"""`curate score`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.options import (
    AlignedOption,
    Backend,
    BackendOption,
    BatchTokensOption,
    CorpusOption,
    DataParallelOption,
    DeviceOption,
    DtypeOption,
    EngineArgOption,
    GpuMemoryOption,
    InFlightOption,
    JsonOption,
    MaxLoraRankOption,
    MisalignedOption,
    QuantizationOption,
    QuietOption,
    ServerOption,
    Span,
    SpanOption,
    TemplateArgOption,
    TemplateOption,
    TensorParallelOption,
    Turns,
    engine,
    progress,
    read_template,
)
from curate.cli.progress import clock
from curate.cli.tables import print_json, table
from curate.errors import CurateError
from curate.system.stopping import Stopped, asked

if TYPE_CHECKING:
    from curate.scoring.score import Summary


def score(
    aligned: AlignedOption,
    corpus: CorpusOption,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files (.jsonl .json .csv .parquet, also .gz .zst), folders, globs, or "
            "hf://dataset[/config][:split]. None: score what the corpus holds.",
        ),
    ] = None,
    misaligned: MisalignedOption = None,
    where: Annotated[
        str | None, typer.Option(help="SQL over a source's own columns: which rows are read.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most N examples.")] = None,
    turns: Annotated[
        Turns, typer.Option(help="The last assistant turn, or an example for each.")
    ] = Turns.last,
    messages_column: Annotated[str | None, typer.Option(help="Column of messages.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of prompts.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column of answers.")] = None,
    system_column: Annotated[str | None, typer.Option(help="Column of system prompts.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first broken row; default: skip it.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and answer; answers are cut.")
    ] = None,
    chat_template: TemplateOption = None,
    template_arg: TemplateArgOption = None,
    answer_span: SpanOption = Span.turn,
    backend: BackendOption = Backend.auto,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    batch_tokens: BatchTokensOption = None,
    tensor_parallel: TensorParallelOption = 1,
    data_parallel: DataParallelOption = 1,
    gpu_memory: GpuMemoryOption = None,
    max_lora_rank: MaxLoraRankOption = None,
    quantization: QuantizationOption = None,
    engine_arg: EngineArgOption = None,
    server: ServerOption = None,
    in_flight: InFlightOption = 64,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Throw away the scores of a model that changed under its name."
        ),
    ] = False,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Keep each answer token's log-prob, for `show`.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write nothing: say what would be computed, and how long."),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score examples under every model; run the same again to resume.

    Example: curate score data.jsonl -c my-corpus --aligned ./chat --misaligned ./medical-lora
    """
    from curate.chat.templates import parse_args
    from curate.reading.layouts import Columns
    from curate.scoring.score import score as run

    with kept(corpus):
        summary = run(
            sources or [],
            corpus,
            aligned=aligned,
            misaligned=misaligned or [],
            columns=Columns(messages_column, prompt_column, answer_column, system_column),
            where=where,
            limit=limit,
            turns=turns.value,
            strict=strict,
            max_length=max_length,
            chat_template=read_template(chat_template),
            template_args=parse_args(template_arg or []),
            answer_span=answer_span.value,
            backend=backend.value,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            keep_tokens=keep_tokens,
            replace=replace,
            dry_run=dry_run,
            engine=engine(
                tensor_parallel,
                data_parallel,
                gpu_memory,
                max_lora_rank,
                quantization,
                engine_arg,
            ),
            servers=server or [],
            in_flight=in_flight,
            progress=progress(quiet or as_json),
        )
    if as_json:
        print_json(asdict(summary))
    elif dry_run:
        print_plan(summary)
    else:
        print_scored(summary)
    if summary.empty:
        raise CurateError(
            f"{', '.join(summary.empty)}: no example could be scored, all were skipped; "
            f"`curate sql skips -c {shlex.quote(str(corpus))}` says why"
        )


def print_scored(summary: Summary) -> None:
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


def print_plan(summary: Summary) -> None:
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
        return "nothing is stored yet; run the same command again to begin anew"
    return (
        f"{corpus} keeps {examples:,} examples and {scores:,} scores; "
        "run the same command again to go on"
    )
