"""`curate score`: its options, and one call into `curate`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from curate.commands.options import (
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
    print_json,
    progress,
    read_template,
)
from curate.errors import CurateError
from curate.running.keeping import kept


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
    from dataclasses import asdict

    from curate import Columns
    from curate import score as run
    from curate.templates import parse_args
    from curate.terminal import display

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
        display.planned(summary)
    else:
        display.scored(summary)
    if summary.empty:
        raise CurateError(
            f"{', '.join(summary.empty)}: no example could be scored, all were skipped; "
            f"`curate sql skips -c {shlex.quote(str(corpus))}` says why"
        )
