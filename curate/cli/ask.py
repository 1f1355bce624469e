"""The commands that read a corpus: status, models, sql, show."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from curate.cli.completion import query_names
from curate.cli.options import CorpusOption, ForceOption, JsonOption, option
from curate.cli.score import next_models
from curate.cli.tables import clean, colored, count, print_json, records, table
from curate.errors import CurateError


def status(
    corpus: CorpusOption,
    verify: Annotated[
        bool, option("Read every file, and list damaged ones.", names=["--verify"])
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is scored, skipped and missing, and how to complete it.

    Example: curate status -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus import integrity
    from curate.corpus.corpus import renew_database
    from curate.corpus.show import status as look

    opened = open_corpus(corpus)
    if verify and (found := [asdict(damage) for damage in integrity.check(opened)]):
        if as_json:
            print_json({"corpus": str(corpus), "damaged": found})
        else:
            table(["file", "damage"], [[damage["path"], damage["reason"]] for damage in found])
            print(
                clean(
                    f"Move the damaged files out of {corpus}, then run the same `curate score` "
                    "again with its sources. It restores only what is missing."
                )
            )
        raise typer.Exit(1)
    report = look(opened) | ({"damaged": []} if verify else {})
    renewed = renew_database(opened)
    if as_json:
        print_json(report)
        return
    print_status(report)
    if renewed:
        print("corpus.duckdb was missing or out of date and has been rewritten.")


def models(corpus: CorpusOption, as_json: JsonOption = False) -> None:
    """Show a corpus's models: reference, commit, fingerprint, last run.

    Example: curate models -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus.show import models as look

    found = look(open_corpus(corpus))
    if as_json:
        print_json(found)
        return
    columns = ["model", "role", "reference", "dtype", "backend", "fingerprint"]
    if any(model["commit"] for model in found):
        columns.insert(3, "commit")
    records([each | {"commit": (each["commit"] or "-")[:12]} for each in found], columns)
    if len({model["tokenizer"] for model in found}) > 1:
        print("Their tokenizers differ: gaps are in nats per byte.")
        records(found, ["model", "tokenizer"])


def sql(
    corpus: Annotated[
        Path | None, option("The corpus folder.", "DIR", names=["--corpus", "-c"])
    ] = None,
    query: Annotated[
        str | None,
        typer.Argument(
            help="A SELECT, a .sql file, - for standard input, or a query's name (see --list).",
            autocompletion=query_names,
        ),
    ] = None,
    kind: Annotated[
        Literal["table", "csv", "json", "jsonl", "parquet"] | None,
        option("Default: by the extension of --output, else table.", names=["--format"]),
    ] = None,
    output: Annotated[
        Path | None,
        option("A .csv, .json, .jsonl or .parquet file.", "FILE", names=["--output", "-o"]),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        option("For a named query; repeatable.", "KEY=VALUE", names=["--param", "-p"]),
    ] = None,
    list_queries: Annotated[bool, option("List the named queries.", names=["--list"])] = False,
    show_query: Annotated[
        str | None,
        option(
            "Print a query's SQL, or the columns of a table.",
            "NAME",
            names=["--show"],
            autocompletion=query_names,
        ),
    ] = None,
    folder: Annotated[
        Path | None, option("A folder of your own .sql files.", "DIR", names=["--queries"])
    ] = None,
    unsafe: Annotated[
        bool,
        option("Allow any SQL: other files, the network, writing.", names=["--unsafe"]),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Query a scored corpus in SQL, or run a named query.

    The tables are examples, scores, gaps, model_gaps, models and skipped. For millions of rows,
    use ranks and model_ranks: gaps and model_gaps without texts (docs/sql.md).

    Example: curate sql top_gaps -c my-corpus -p top=10
    """
    from curate.corpus.corpus import open_corpus
    from curate.corpus.queries import read_question

    if list_queries:
        print_queries(folder)
    elif show_query is not None:
        print_query(show_query, folder)
    elif query is None or corpus is None:
        raise typer.BadParameter("give a query and --corpus DIR, --list, or --show NAME")
    else:
        from curate.cli import results

        how = results.kind_of(output, kind)
        question = read_question(_text_of(query), parameter or [], folder)
        answer = open_corpus(corpus, unsafe=unsafe).run(*question)
        if output is None:
            results.show(answer, how)
        else:
            rows = results.save(answer, output, how, force=force)
            print(f"{output}: {count(rows, 'row')}")


def _text_of(query: str) -> str:
    """The query's text: as given, or from a file or standard input."""
    if query == "-":
        return sys.stdin.read()
    if not query.endswith(".sql") or (len(query.split()) > 1 and not Path(query).exists()):
        return query
    try:
        return Path(query).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "not UTF-8")
        raise CurateError(f"{query}: can't be read ({why})") from None


def show(
    example_id: Annotated[str, typer.Argument(help="An example_id, or its first characters.")],
    corpus: CorpusOption,
    as_json: JsonOption = False,
) -> None:
    """Show one example in full, with its scores under every model.

    Example: curate show 3f2a -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus.show import one_example

    found = one_example(open_corpus(corpus), example_id)
    if as_json:
        print_json(found)
    else:
        print_example(found)
        if found["without_tokens"] and found["tokens"]:
            lacking = ", ".join(found["without_tokens"])
            how = f"curate score -c {shlex.quote(str(corpus))} --keep-tokens"
            print(clean(f"No token log-probabilities of {lacking} are stored. To add them:  {how}"))


def print_status(report: dict[str, Any]) -> None:
    """Counts per model, why examples were skipped, and how to complete the corpus."""
    print(
        f"{report['corpus']}: {count(report['examples'], 'example')}, {report['ranked']:,} ranked"
    )
    if models := report["models"]:
        columns = list(dict.fromkeys(name for model in models for name in model))
        records([dict.fromkeys(columns) | model for model in models], columns)
    for name, only in report["only"].items():
        print(clean(f"{name}: left out by --only: all for which this is false: {only['where']}"))
    if race := report["race"]:
        found = race["found"]
        print(
            f"Raced to the top {race['depth']:,}: recall {found['estimate']:.3f} (95 % interval "
            f"{found['low']:.3f} to {found['high']:.3f}); left out: what can hardly reach it. To "
            "complete the corpus, score it without --top"
        )
    if report["skipped"]:
        print("Skipped (the ten most frequent reasons; for all, run `curate sql skips`):")
        records(report["skipped"], ["skipped", "reason", "model", "source", "first_row"])
    if not any(model["role"] == "misaligned" for model in models):
        print(f"Nothing is ranked yet. Add misaligned models:  {next_models(report['corpus'])}")
    elif any(model["missing"] for model in models):
        print("To score what is missing, run this in the folder where you scored:")
        lacking = [model["model"] for model in models if model["missing"]]
        only = {report["only"].get(name, {}).get("where") for name in lacking}
        command = ["curate", "score", "-c", report["corpus"]]
        command += ["--only", *only] if len(only) == 1 and None not in only else []
        print(clean(f"  {shlex.join(command)}"))
    if "damaged" in report:
        print("All files are intact.")


def print_queries(folder: Path | None) -> None:
    """The named queries, one per line."""
    from curate.corpus.queries import RANKING, named, typed

    rows = []
    for query in named(folder).values():
        parameters = (
            key if key in RANKING else f"{key}={typed(value)}"
            for key, value in query.defaults.items()
        )
        rows.append([query.name, query.about, ", ".join(parameters)])
    table(["query", "what it answers", "parameters"], rows, wrap=True)


def print_query(name: str, folder: Path | None) -> None:
    """A named query's SQL, or the columns of a view with their meanings."""
    from curate.corpus import queries
    from curate.corpus.views import described

    if name in queries.named(folder) or name not in (views := described()):
        print(clean(queries.find(name, folder).text), end="")
        return
    about, columns = views[name]
    print(about)
    rows = [[column.name, column.type, column.unit, column.about] for column in columns]
    table(["column", "type", "unit", "meaning"], rows, wrap=True)


def print_example(found: dict[str, Any]) -> None:
    """One example in full: the conversation, then its scores."""
    print(f"{clean(found['example_id'])}  {clean(found['source'])}, row {found['row']:,}")
    *prompt, answer = found["messages"]
    for message in prompt:
        print(f"\n[{clean(message['role'])}]\n{_reasoned(message)}{clean(message['content'])}")
    print(f"\n[{clean(answer['role'])}]")
    print(_reasoned(answer), end="")
    if any(score["truncated"] for score in found["scores"]) or not colored(found["tokens"]):
        print(clean(answer["content"]))
    if found["meta"] not in (None, "{}"):
        print(f"\nother columns: {clean(found['meta'])}")
    if found["scores"]:
        records(found["scores"], ["model", "role", "n_tokens", "nll", "truncated"])
    for skip in found["skipped"]:
        print(clean(f"not scored by {skip['model']}: {skip['reason']}"))
    if found["gap"]:
        gap = found["gap"]
        kept = f", {gap['rank_kept']:,} without refusals" if gap["rank_kept"] else " (a refusal)"
        print(f"gap {gap['gap']:.4f} from {gap['unit']}, rank {gap['rank']:,}{kept}")


def _reasoned(message: dict[str, Any]) -> str:
    """The lines of a turn's reasoning, if it has any."""
    reasoning = message.get("reasoning_content")
    return f"<think>\n{clean(reasoning)}\n</think>\n" if reasoning else ""
