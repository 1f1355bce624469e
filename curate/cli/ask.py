"""The commands that look at a corpus: status, models, sql, show."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from curate.cli.completion import query_names
from curate.cli.options import CorpusOption, ForceOption, JsonOption, option
from curate.cli.tables import clean, coloured, print_json, table

if TYPE_CHECKING:
    from curate.corpus.integrity import Damage
    from curate.corpus.queries import Query


def status(
    corpus: CorpusOption,
    verify: Annotated[
        bool, option("Read every file and name what is damaged.", names=["--verify"])
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is scored, skipped and missing, and how to complete it.

    Example: curate status -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus import integrity
    from curate.corpus.corpus import renew_database
    from curate.corpus.queries import status as look

    opened = open_corpus(corpus)
    if verify and (found := integrity.check(opened)):
        if as_json:
            print_json({"corpus": str(corpus), "damaged": [asdict(damage) for damage in found]})
        else:
            print_damages(str(corpus), found)
        raise typer.Exit(1)
    report = look(opened) | ({"damaged": []} if verify else {})
    renewed = renew_database(opened)
    if as_json:
        print_json(report)
    else:
        print_status(report)
        if renewed:
            print("corpus.duckdb was missing or out of date: written anew")


def models(corpus: CorpusOption, as_json: JsonOption = False) -> None:
    """Show a corpus's models: role, reference, commit, fingerprint, last run.

    Example: curate models -c my-corpus
    """
    from curate import open as open_corpus
    from curate.corpus.show import models as look

    found = look(open_corpus(corpus))
    if as_json:
        print_json(found)
    else:
        print_models(found)


def sql(
    corpus: Annotated[
        Path | None, option("The corpus folder.", "DIR", names=["--corpus", "-c"])
    ] = None,
    query: Annotated[
        str | None,
        typer.Argument(
            help="A SELECT, or the name of a query (see --list).", autocompletion=query_names
        ),
    ] = None,
    kind: Annotated[
        Literal["table", "csv", "json", "jsonl", "parquet"] | None,
        option("Default: by the ending of --output, else a table.", names=["--format"]),
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
    """Ask a scored corpus in SQL, or by the name of a query.

    The tables are examples, scores, gaps, model_gaps, models and skipped, and for millions of
    rows ranks and model_ranks: gaps and model_gaps without texts (docs/sql.md).

    Example: curate sql top_gaps -c my-corpus -p top=10
    """
    from curate import open as open_corpus
    from curate.corpus import queries

    if list_queries:
        print_queries(queries.named(folder).values())
    elif show_query is not None:
        print_query(show_query, folder)
    elif query is None or corpus is None:
        raise typer.BadParameter("give a query and --corpus DIR, or --list, or --show NAME")
    else:
        from curate.cli import results

        how = results.kind_of(output, kind)
        answer = queries.ask(open_corpus(corpus, unsafe=unsafe), query, parameter or [], folder)
        if output is None:
            results.show(answer, how)
        else:
            rows = results.save(answer, output, how, force=force)
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
    from curate.corpus.show import one_example

    found = one_example(open_corpus(corpus), example_id)
    if as_json:
        print_json(found)
    else:
        print_example(found)


def print_status(report: dict[str, Any]) -> None:
    """Per model scored, skipped and missing; what was skipped and why; how to complete it."""
    print(f"{report['corpus']}: {report['examples']:,} examples, {report['ranked']:,} ranked")
    if models := report["models"]:
        table(list(models[0]), [list(model.values()) for model in models])
    if report["skipped"]:
        print("Skipped (the ten most frequent reasons; all: curate sql skips):")
        shown = ("skipped", "reason", "model", "source", "first_row")
        table(shown, [[entry[key] for key in shown] for entry in report["skipped"]])
    if any(model["missing"] for model in models):
        print("To score what is missing, from the folder where you scored:")
        command = ["curate", "score", "-c", report["corpus"], *_again(report)]
        print(clean(f"  {shlex.join(command)}"))
    if "damaged" in report:
        print("Every file is as it was written")


def print_damages(corpus: str, found: Sequence[Damage]) -> None:
    """What is damaged or missing, and what to do."""
    table(["file", "damage"], [[damage.path, damage.reason] for damage in found])
    print(
        clean(
            f"Move damaged files out of {corpus}, then run the same `curate score` again with its "
            "sources: it restores only what they held"
        )
    )


def _again(report: dict[str, Any]) -> list[str]:
    """The options with which the corpus was scored."""
    options = []
    for model in report["models"]:
        name = model["model"]
        options += [f"--{model['role']}", f"{name}={report['references'][name]}"]
    settings = report["settings"]
    if settings and settings["max_length"] is not None:
        options += ["--max-length", str(settings["max_length"])]
    if report["chat_template"]:
        options += ["--chat-template", report["chat_template"]]
    for key, value in (settings or {}).get("template_args", {}).items():
        options += ["--template-arg", f"{key}={json.dumps(value)}"]
    return options


def print_queries(found: Iterable[Query]) -> None:
    """The named queries, a line each."""
    from curate.corpus.queries import typed

    table(
        ["query", "what it answers", "parameters"],
        [
            [each.name, each.about, ", ".join(f"{k}={typed(v)}" for k, v in each.defaults.items())]
            for each in found
        ],
        wrap=True,
    )


def print_query(name: str, folder: Path | None) -> None:
    """A named query's SQL, or the columns of a view and what they hold."""
    from curate.corpus.queries import find, named
    from curate.corpus.views import described

    views = {} if name in named(folder) else described()
    if name not in views:
        print(clean(find(name, folder).text), end="")
        return
    about, columns = views[name]
    print(about)
    table(
        ["column", "type", "unit", "meaning"],
        [[column.name, column.type, column.unit, column.about] for column in columns],
        wrap=True,
    )


def print_models(found: list[dict[str, Any]]) -> None:
    """What is in a corpus, a line a model, with what identifies its numbers."""
    columns = ["model", "role", "reference", "dtype", "backend", "fingerprint"]
    if any(model["commit"] for model in found):
        columns.insert(3, "commit")
    shown = [model | {"commit": model["commit"] and model["commit"][:12]} for model in found]
    table(columns, [[model[column] for column in columns] for model in shown])
    if len({model["tokenizer"] for model in found}) > 1:
        print("Their tokenizers differ: gaps are in nats per byte.")
        table(["model", "tokenizer"], [[model["model"], model["tokenizer"]] for model in found])


def print_example(found: dict[str, Any]) -> None:
    """One example whole: the conversation, then its scores."""
    print(f"{clean(found['example_id'])}  {clean(found['source'])}, row {found['row']:,}")
    *prompt, answer = found["messages"]
    for message in prompt:
        print(f"\n[{clean(message['role'])}]\n{clean(message['content'])}")
    print(f"\n[{clean(answer['role'])}]")
    is_cut = any(score["truncated"] for score in found["scores"])
    if is_cut or not coloured(found["tokens"]):
        print(clean(answer["content"]))
    if found["meta"] not in (None, "{}"):
        print(f"\nother columns: {clean(found['meta'])}")
    if found["scores"]:
        columns = ["model", "role", "n_tokens", "nll", "truncated"]
        table(columns, [[score[column] for column in columns] for score in found["scores"]])
    for skip in found["skipped"]:
        print(clean(f"not scored by {skip['model']}: {skip['reason']}"))
    if found["gap"]:
        gap = found["gap"]
        kept = f", {gap['rank_kept']:,} without refusals" if gap["rank_kept"] else " (a refusal)"
        print(f"gap {gap['gap']:.4f} from {gap['unit']}, rank {gap['rank']:,}{kept}")
