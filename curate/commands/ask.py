"""The commands that look at a corpus: status, models, sql, show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from curate.commands.completion import query_names
from curate.commands.options import CorpusOption, ForceOption, JsonOption, Output, print_json


def status(
    corpus: CorpusOption,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and name what is damaged or missing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is scored, skipped and missing, and how to complete it.

    Example: curate status -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus import renew_database
    from curate.queries import status as look
    from curate.storage import integrity
    from curate.terminal import display

    opened = open_corpus(corpus)
    if verify and (found := integrity.check(opened)):
        if as_json:
            print_json({"corpus": str(corpus), "damaged": [asdict(damage) for damage in found]})
        else:
            display.damages(str(corpus), found)
        raise typer.Exit(1)
    report = look(opened)
    renew_database(opened)
    if verify:
        report |= {"damaged": []}
    if as_json:
        print_json(report)
    else:
        display.status(report)


def models(corpus: CorpusOption, as_json: JsonOption = False) -> None:
    """Show a corpus's models: role, reference, fingerprint, last run.

    Example: curate models -c my-corpus
    """
    from curate import open as open_corpus
    from curate.looks import models as look
    from curate.terminal import display

    found = look(open_corpus(corpus))
    if as_json:
        print_json(found)
    else:
        display.models(found)


def sql(
    corpus: Annotated[
        Path | None, typer.Option("--corpus", "-c", help="The corpus folder.", metavar="DIR")
    ] = None,
    query: Annotated[
        str | None,
        typer.Argument(
            help="A SELECT, or the name of a query (see --list).", autocompletion=query_names
        ),
    ] = None,
    output_format: Annotated[
        Output | None,
        typer.Option("--format", help="How rows are given. Default: by --output, else a table."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this .csv, .json, .jsonl or .parquet file."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help="For a named query; repeatable."),
    ] = None,
    list_queries: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
    show_query: Annotated[
        str | None,
        typer.Option(
            "--show",
            metavar="NAME",
            help="Print a query's SQL, or the columns of a table.",
            autocompletion=query_names,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--queries", metavar="DIR", help="Your own .sql files, named likewise."),
    ] = None,
    spreadsheet: Annotated[
        bool,
        typer.Option("--spreadsheet", help="In CSV: put ' before text that would be a formula."),
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Let SQL reach other files, the network and extensions, and write."
        ),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Ask a scored corpus in SQL, or by the name of a query.

    The tables are examples, scores, gaps, model_gaps, models and skipped, and for millions of
    rows ranks and model_ranks: gaps and model_gaps without texts (docs/sql.md).

    Example: curate sql top_gaps -c my-corpus -p top=10
    """
    from curate import open as open_corpus
    from curate import queries
    from curate.terminal import display, printing

    if list_queries:
        display.queries(queries.named(folder).values())
    elif show_query is not None:
        display.query(show_query, folder)
    elif query is None or corpus is None:
        raise typer.BadParameter("give a query and --corpus DIR, or --list, or --show NAME")
    else:
        from curate.terminal import saving

        kind = saving.kind_of(output, output_format)
        opened = open_corpus(corpus, unsafe=unsafe)
        answer = queries.ask(opened, query, parameter or [], folder)
        if spreadsheet and kind != "csv":
            raise typer.BadParameter("--spreadsheet is for CSV: add --format csv")
        if output is None:
            printing.relation(answer, kind, spreadsheet=spreadsheet)
        else:
            rows = saving.save(answer, output, kind, force=force, spreadsheet=spreadsheet)
            print(f"{output}: {rows:,} rows")


def show(
    example_id: Annotated[str, typer.Argument(help="An example_id, or its first characters.")],
    corpus: CorpusOption,
    as_json: JsonOption = False,
) -> None:
    """Show one example whole, with its scores under every model.

    Example: curate show 3f2a -c my-corpus
    """
    from curate import open as open_corpus
    from curate.looks import one_example
    from curate.terminal import display

    found = one_example(open_corpus(corpus), example_id)
    if as_json:
        print_json(found)
    else:
        display.example(found)
