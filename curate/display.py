"""How results look: tables for people, JSON for machines. Data never controls the terminal."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from curate.demo import Demo
    from curate.queries import Query
    from curate.scoring import Summary

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Text from data with its control characters made visible, so that no escape code acts."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table fitted to the terminal: numbers whole, long text cut with an ellipsis."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    values = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in values]
    numeric = [any(isinstance(row[i], int | float) for row in values) for i in range(len(columns))]
    widths = _fit(columns, cells, numeric, console.width)
    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column, is_number, width in zip(columns, numeric, widths, strict=True):
        grid.add_column(
            Text(clean(column)), justify="right" if is_number else "left", width=width, no_wrap=True
        )
    for row in cells:
        grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console.print(grid)


def _fit(
    columns: Sequence[str], cells: list[list[str]], numeric: Sequence[bool], total: int
) -> list[int]:
    """Column widths: what each needs, and text columns cut to a fair share of what is left."""
    from rich.cells import cell_len

    needs = [
        max(cell_len(column), *(cell_len(row[i]) for row in cells), 1)
        for i, column in enumerate(columns)
    ]
    left = (
        total - 3 * len(columns) - sum(n for n, fixed in zip(needs, numeric, strict=True) if fixed)
    )
    widths = list(needs)
    texts = sorted((i for i, fixed in enumerate(numeric) if not fixed), key=lambda i: needs[i])
    for position, i in enumerate(texts):
        share = max(left // (len(texts) - position), 8)
        widths[i] = min(needs[i], share)
        left -= widths[i]
    return widths


def relation(result: duckdb.DuckDBPyRelation, kind: str) -> None:
    """Print a query's result as a table, csv, json or jsonl.

    Tables and JSON are made in memory: limit the query where the result is large.
    """
    from curate.corpus import readable_errors

    with readable_errors():
        data = result.to_arrow_table()
    if kind == "table":
        table(data.column_names, zip(*(column.to_pylist() for column in data), strict=True))
        return
    if kind == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(data), sys.stdout.buffer)
    elif kind == "json":
        print(json.dumps(data.to_pylist(), ensure_ascii=False, indent=1, default=str))
    else:
        for row in data.to_pylist():
            print(json.dumps(row, ensure_ascii=False, default=str))


def scored(summary: Summary) -> None:
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


def exported(record: dict[str, Any]) -> None:
    """What `curate export` wrote, with both denominators of the share."""
    counts, narrow, cut = record["counts"], record["narrow"], record["cut"]
    path = record["output"]["path"]
    print(f"{path}: {record['output']['rows']:,} rows, {counts['safe']:,} of them safe examples")
    if narrow:
        print(
            f"  {counts['share_of_narrow']:.2%} of the narrow set's {narrow['rows']:,} rows, "
            f"{counts['share_of_mix']:.2%} of the mix; placed evenly"
        )
    if counts["safe"] < counts["wanted"]:
        print(
            f"  {counts['wanted'] - counts['safe']:,} fewer than the {counts['wanted']:,} asked "
            f"for: of {counts['ranked']:,} ranked, the filter left out "
            f"{counts['left_out_by_where']:,} and --refusals {record['recipe']['refusals']} "
            f"{counts['left_out_by_refusals']:,}"
        )
    if cut["inside_noise"]:
        print(
            f"  the cut lies inside numerical noise ({cut['noise']} nats): the last row taken and "
            "the first left out could change places on another machine"
        )
    print(f"{path}.manifest.json: how it was made, and which rows are safe")


def status(report: dict[str, Any]) -> None:
    """Per model scored, skipped and missing; what was skipped and why; how to complete it."""
    print(f"{report['corpus']}: {report['examples']:,} examples, {report['ranked']:,} ranked")
    models = report["models"]
    if models:
        table(list(models[0]), [list(model.values()) for model in models])
    if report["skipped"]:
        print("Skipped (the ten most frequent reasons; all: curate sql skips):")
        shown = ("skipped", "reason", "model", "source", "first_row")
        table(shown, [[entry[key] for key in shown] for entry in report["skipped"]])
    missing = [model for model in models if model["missing"]]
    if missing:
        options = " ".join(
            f"--{model['role']} "
            + shlex.quote(f"{model['model']}={report['references'][model['model']]}")
            for model in models
        )
        corpus = shlex.quote(report["corpus"])
        print(f"To score what is missing:\n  curate score -c {corpus} {options}")


def queries(found: Iterable[Query]) -> None:
    """The named queries, a line each."""
    table(
        ["query", "what it answers", "parameters"],
        [
            [query.name, query.about, ", ".join(f"{k}={v}" for k, v in query.defaults.items())]
            for query in found
        ],
    )


def example(found: dict[str, Any]) -> None:
    """One example whole: the conversation, then its scores."""
    print(f"{found['example_id']}  {clean(found['source'])}, row {found['row']:,}")
    for message in found["messages"]:
        print(f"\n[{clean(message['role'])}]\n{clean(message['content'])}")
    if found["meta"] not in (None, "{}"):
        print(f"\nother columns: {clean(found['meta'])}")
    if found["scores"]:
        columns = ["model", "role", "n_tokens", "nll", "truncated"]
        table(columns, [[score[column] for column in columns] for score in found["scores"]])
    for skip in found["skipped"]:
        print(f"not scored by {skip['model']}: {clean(skip['reason'])}")
    if found["gap"]:
        gap = found["gap"]
        kept = f", {gap['rank_kept']:,} without refusals" if gap["rank_kept"] else " (a refusal)"
        print(f"gap {gap['gap']:.4f} from {gap['unit']}, rank {gap['rank']:,}{kept}")


def demo(made: Demo) -> None:
    """What the demo ran, the top of its ranking and what it wrote."""
    print("What ran:")
    for command in made.commands:
        print(f"  {command}")
    scored_rows = sum(run.scored for run in made.summary.models)
    print(
        f"\n{made.summary.read.new:,} examples read, {scored_rows:,} scores computed "
        "(a second run computes none)"
    )
    table(made.columns, made.top, title="Easy for the aligned model, hard for the misaligned ones")
    exported(made.export)
    corpus = shlex.quote(made.summary.corpus)
    print(f"{made.summary.corpus}: the scored corpus; ask it with `curate sql --list -c {corpus}`")


def _flat(data: Any) -> Any:
    """Nested columns as JSON text: a CSV cell holds no lists."""
    import pyarrow as pa

    for index, field in enumerate(data.schema):
        if pa.types.is_nested(field.type):
            texts = [
                None if value is None else json.dumps(value, ensure_ascii=False, default=str)
                for value in data.column(index).to_pylist()
            ]
            data = data.set_column(index, field.name, pa.array(texts, pa.string()))
    return data


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return clean(" ".join(str(value).split()))
