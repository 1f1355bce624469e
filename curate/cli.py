"""The command line: arguments, help, errors. Each command is one call into `curate`."""

from __future__ import annotations

import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import CurateError

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


class Turns(StrEnum):
    """Which assistant turns become examples."""

    last = "last"
    all = "all"


class Span(StrEnum):
    """Which tokens of an answer count."""

    turn = "turn"
    content = "content"


class Refusals(StrEnum):
    """What happens to refusals in a selection."""

    drop = "drop"
    keep = "keep"
    only = "only"


class Strategy(StrEnum):
    """How a safe set is drawn."""

    gap = "gap"
    random = "random"


class Metric(StrEnum):
    """The gap's formula (sql/views/gaps.sql)."""

    relative = "relative"
    difference = "difference"
    per_byte = "per_byte"


class Backend(StrEnum):
    """What computes log-probs."""

    auto = "auto"
    transformers = "transformers"


class Output(StrEnum):
    """How `curate sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"


CorpusOption = Annotated[
    Path, typer.Option("--corpus", "-c", help="The corpus folder.", metavar="DIR")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]
EpsilonOption = Annotated[
    float, typer.Option(help="ε of the relative gap, in nats: keeps tiny aligned losses down.")
]
HoldOutOption = Annotated[
    list[str] | None, typer.Option(help="Leave this misaligned model out of the mean; repeatable.")
]


@app.command(rich_help_panel="The main job")
def score(
    aligned: Annotated[str, typer.Option(help="The aligned model: [NAME=]FOLDER or hub id.")],
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
        typer.Option(help="A misaligned model, likewise, or a PEFT adapter folder; repeatable."),
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
        list[str] | None, typer.Option(help="key=value for the template; repeatable.")
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
    """Score examples under an aligned and several misaligned models; run again to resume.

    Example: curate score data.jsonl -c my-corpus --aligned ./chat --misaligned ./medical-lora
    """
    from dataclasses import asdict

    from curate import Columns, display
    from curate import score as run
    from curate.templates import parse_args

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


@app.command(rich_help_panel="The main job")
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
    """Write the top-ranked safe examples, or the mix with a narrow set, for a trainer.

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


@app.command(rich_help_panel="Look and ask")
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


@app.command(rich_help_panel="Look and ask")
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
        typer.Option("--param", "-p", help="key=value for a named query; repeatable."),
    ] = None,
    list_queries: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
) -> None:
    """Ask a scored corpus: your own SELECT over examples, scores, gaps, models, skipped, or a name.

    Example: curate sql top_gaps -c my-corpus -p top=10
    """
    from curate import display, queries
    from curate import open as open_corpus

    if list_queries:
        display.queries(queries.named().values())
    elif query is None or corpus is None:
        raise typer.BadParameter("give a query and --corpus DIR, or --list")
    else:
        display.relation(queries.ask(open_corpus(corpus), query, parameter or []), output_format)


@app.command(rich_help_panel="Look and ask")
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


@app.command(rich_help_panel="The main job")
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo writes.", metavar="DIR")
    ] = Path("curate-demo"),
    quiet: QuietOption = False,
) -> None:
    """Go the whole way on bundled models and data: offline, under a minute.

    Example: curate demo --dir /tmp/curate-demo
    """
    from curate import display
    from curate.demo import run

    display.demo(run(directory, _progress(quiet)))


def main() -> None:
    """Run the app: a user's error is one line and exit 1, an interrupt exit 130."""
    # A stop asked for from outside ends like Ctrl-C: what was scored is stored on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except CurateError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


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
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))
