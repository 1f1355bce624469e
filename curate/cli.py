"""The command line: arguments, help, errors. Each command is one call into `curate`."""

from __future__ import annotations

import re
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import CurateError
from curate.options import (
    Backend,
    CorpusOption,
    EpsilonOption,
    ForceOption,
    HoldOutOption,
    JsonOption,
    Metric,
    Output,
    QuietOption,
    Refusals,
    Span,
    Strategy,
    Turns,
)
from curate.stopping import Stopped, kept, stoppable

if TYPE_CHECKING:
    from curate.progress import Progress

app = typer.Typer(
    name="curate",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich alone takes longer to import than the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the general examples that an aligned model finds easy and misaligned models find "
    "hard, and interleave a few of them into narrow fine-tuning data.",
)


@app.command()
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
            progress=_progress(quiet or as_json),
        )
    if as_json:
        _print_json(asdict(summary))
    else:
        display.scored(summary)


@app.command()
def export(
    corpus: CorpusOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl or .parquet file.")],
    top: Annotated[int | None, typer.Option(help="Take the N best examples.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Safe rows as a share of the narrow set's: 0.05 is 5 %.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="The narrow set, any input format: write the mix.")
    ] = None,
    refusals: Annotated[
        Refusals, typer.Option(help="Leave refusals out, keep them, or take them alone.")
    ] = Refusals.drop,
    strategy: Annotated[
        Strategy, typer.Option(help="The largest gaps, or a random draw.")
    ] = Strategy.gap,
    metric: Annotated[Metric, typer.Option(help="The gap's formula.")] = Metric.relative,
    epsilon: EpsilonOption = 1.0,
    hold_out: HoldOutOption = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL over the columns of gaps and examples: what may be taken."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random draw.")] = 0,
    from_manifest: Annotated[
        Path | None, typer.Option(help="Make the file of an earlier export again, byte for byte.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the best safe examples, or their mix with a narrow set.

    Example: curate export -c my-corpus --fraction 0.05 --into customer.jsonl -o mix.jsonl
    """
    from curate import Recipe, display
    from curate import open as open_corpus
    from curate.exporting import export_again

    if from_manifest is not None:
        record = export_again(open_corpus(corpus), output, from_manifest, force=force)
    else:
        recipe = Recipe(
            top=top,
            fraction=fraction,
            into=None if into is None else str(into),
            refusals=refusals.value,
            strategy=strategy.value,
            metric=metric.value,
            epsilon=epsilon,
            hold_out=tuple(hold_out or ()),
            where=where,
            seed=seed,
        )
        record = open_corpus(corpus).export(output, recipe, force=force)
    if as_json:
        _print_json(record)
    else:
        display.exported(record)


@app.command()
def status(corpus: CorpusOption, as_json: JsonOption = False) -> None:
    """Show what is scored, skipped and missing, per model.

    Example: curate status -c my-corpus
    """
    from curate import display
    from curate import open as open_corpus
    from curate.queries import status as look

    report = look(open_corpus(corpus))
    if as_json:
        _print_json(report)
    else:
        display.status(report)


@app.command()
def sql(
    corpus: Annotated[
        Path | None, typer.Option("--corpus", "-c", help="The corpus folder.", metavar="DIR")
    ] = None,
    query: Annotated[
        str | None, typer.Argument(help="A SELECT, or the name of a query (see --list).")
    ] = None,
    output_format: Annotated[
        Output, typer.Option("--format", help="How rows are printed.")
    ] = Output.table,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help="For a named query; repeatable."),
    ] = None,
    list_queries: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
) -> None:
    """Ask a scored corpus in SQL, or by the name of a query.

    The tables are examples, scores, gaps, models and skipped.

    Example: curate sql top_gaps -c my-corpus -p top=10
    """
    from curate import display, printing, queries
    from curate import open as open_corpus

    if list_queries:
        display.queries(queries.named().values())
    elif query is None or corpus is None:
        raise typer.BadParameter("give a query and --corpus DIR, or --list")
    else:
        printing.relation(queries.ask(open_corpus(corpus), query, parameter or []), output_format)


@app.command()
def show(
    example_id: Annotated[str, typer.Argument(help="An example_id, or its first characters.")],
    corpus: CorpusOption,
    as_json: JsonOption = False,
) -> None:
    """Show one example whole, with its scores under every model.

    Example: curate show 3f2a -c my-corpus
    """
    from curate import display
    from curate import open as open_corpus
    from curate.queries import one_example

    found = one_example(open_corpus(corpus), example_id)
    if as_json:
        _print_json(found)
    else:
        display.example(found)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo writes.", metavar="DIR")
    ] = Path("curate-demo"),
    quiet: QuietOption = False,
) -> None:
    """Go the whole way on bundled models and data, offline.

    Example: curate demo --dir /tmp/curate-demo
    """
    from curate import display
    from curate.demo import run

    with kept(directory / "corpus"):
        made = run(directory, _progress(quiet))
    display.demo(made)


def main() -> None:
    """Run the app: a user's error is one line and exit 1, a stop one line and exit 130 or 143."""
    if isinstance(sys.stdout, TextIOWrapper):  # a path or a terminal may not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            app()
    except CurateError as error:
        _say(f"Error: {error}")
        raise SystemExit(1) from None
    except Stopped as stop:
        _say(str(stop))
        raise SystemExit(128 + stop.number) from None


def _say(text: str) -> None:
    """One line on stderr; what it quotes from data can't control the terminal."""
    from curate.printing import clean

    print(clean(re.sub(r"\s*\n\s*", " ", text)), file=sys.stderr)


def _progress(quiet: bool) -> Progress:
    from curate.progress import Bar, Lines, Silent

    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines(sys.stderr)


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CurateError(f"{path}: can't be read as a chat template ({error})") from None


def _print_json(value: Any) -> None:
    from curate.printing import json_text

    print(json_text(value))
