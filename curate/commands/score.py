"""`curate score`: its options, and one call into `curate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.errors import CurateError
from curate.options import (
    Backend,
    CorpusOption,
    JsonOption,
    QuietOption,
    Span,
    Turns,
    print_json,
    progress,
)
from curate.stopping import kept


def score(
    aligned: Annotated[
        str, typer.Option(metavar="[NAME=]MODEL", help="The aligned model: a folder or hub id.")
    ],
    corpus: CorpusOption,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files (.jsonl .json .csv .parquet, also .gz .zst), folders, globs, or "
            "hf://dataset[/config][:split]. None: score what the corpus holds.",
        ),
    ] = None,
    misaligned: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="A misaligned model, likewise, or a PEFT adapter's folder; repeatable.",
        ),
    ] = None,
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
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file instead of the models' own template.")
    ] = None,
    template_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A variable of the template; repeatable."),
    ] = None,
    answer_span: Annotated[
        Span, typer.Option(help="Count end-of-turn tokens (turn) or the text alone (content).")
    ] = Span.turn,
    backend: Annotated[Backend, typer.Option(help="What computes log-probs.")] = Backend.auto,
    device: Annotated[
        str | None, typer.Option(help="cuda, mps or cpu. Default: the fastest there is.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Default: by device.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Padded tokens in one forward pass.")
    ] = None,
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

    from curate import Columns, display
    from curate import score as run
    from curate.templates import parse_args

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
            chat_template=_read(chat_template),
            template_args=parse_args(template_arg or []),
            answer_span=answer_span.value,
            backend=backend.value,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            keep_tokens=keep_tokens,
            dry_run=dry_run,
            progress=progress(quiet or as_json),
        )
    if as_json:
        print_json(asdict(summary))
    elif dry_run:
        display.planned(summary)
    else:
        display.scored(summary)


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"{path}: can't be read as a chat template ({error})") from None
