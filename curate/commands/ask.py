"""The commands that look at a corpus: status, sql, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.options import CorpusOption, JsonOption, Output, print_json


def status(corpus: CorpusOption, as_json: JsonOption = False) -> None:
    """Show what is scored, skipped and missing, per model.

    Example: curate status -c my-corpus
    """
    from curate import display
    from curate import open as open_corpus
    from curate.queries import status as look

    report = look(open_corpus(corpus))
    if as_json:
        print_json(report)
    else:
        display.status(report)


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
    from curate.looks import one_example

    found = one_example(open_corpus(corpus), example_id)
    if as_json:
        print_json(found)
    else:
        display.example(found)
