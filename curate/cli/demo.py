"""`curate demo`: every step on bundled models and data."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from curate.cli.exported import exported
from curate.cli.options import JsonOption, QuietOption, option, progress
from curate.cli.progress import kept
from curate.cli.score import holdings
from curate.cli.tables import print_json, table
from curate.errors import CurateError
from curate.system.progress import Progress

_COLUMNS = ["rank", "gap", "aligned", "misaligned", "prompt", "answer"]


def demo(
    directory: Annotated[
        Path, option("Folder for the demo's output.", "DIR", names=["--dir"])
    ] = Path("curate-demo"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run every step on bundled models and data, offline.

    Example: curate demo --dir /tmp/curate-demo
    """
    from importlib import resources

    stored = partial(holdings, directory / "corpus")
    with kept(stored), resources.as_file(resources.files("curate.data")) as data:
        made = run(data, directory, progress(quiet or as_json))
    if as_json:
        print_json(made)
    else:
        print_demo(made)


def run(data: Path, directory: Path, progress: Progress) -> dict[str, Any]:
    """Score the bundled examples with the bundled models and mix the best into narrow data.

    Replaces the output of an earlier demo. Returns the run, the top of the ranking and the
    export's manifest.

    Raises:
        CurateError: the directory can't be written or holds something else.
    """
    from curate.backends.base import Compute
    from curate.corpus.corpus import open_corpus
    from curate.export.export import export
    from curate.scoring.score import score
    from curate.selection.recipe import Recipe

    models = data / "models"
    corpus, mix, narrow = directory / "corpus", directory / "mix.jsonl", data / "narrow.jsonl"
    earlier = (corpus / "curate.json").exists()
    if mix.exists() and not earlier:
        raise CurateError(f"{mix}: already exists, and no demo wrote it. Give another --dir.")
    misaligned = [str(models / name) for name in ("medical", "legal", "code")]
    summary = score(
        [str(data / "examples")],
        corpus,
        aligned=str(models / "aligned"),
        misaligned=misaligned,
        compute=Compute(device="cpu"),
        keep_tokens=True,
        progress=progress,
    )
    opened = open_corpus(corpus)
    return {
        "commands": [
            f"curate score {data / 'examples'} -c {corpus} --keep-tokens "
            f"--aligned {models / 'aligned'} --misaligned {' --misaligned '.join(misaligned)}",
            f"curate export -c {corpus} --fraction 0.05 --into {narrow} -o {mix}",
        ],
        "summary": asdict(summary),
        "columns": _COLUMNS,
        "top": opened.query("top_gaps", top=10).select(*_COLUMNS).fetchall(),
        "export": export(opened, mix, Recipe(fraction=0.05, into=str(narrow)), force=earlier),
    }


def print_demo(made: dict[str, Any]) -> None:
    """What the demo ran, the top of its ranking and what it wrote."""
    print("What ran:")
    for command in made["commands"]:
        print(f"  {command}")
    summary = made["summary"]
    scored = sum(run["scored"] for run in summary["models"])
    print(
        f"\n{summary['read']['new']:,} examples read, {scored:,} scores computed "
        "(a second run computes none)"
    )
    print("Easy for the aligned model, hard for the misaligned ones:")
    table(made["columns"], made["top"])
    exported(made["export"])
    corpus = summary["corpus"]
    ask = f"curate sql top_gaps -c {shlex.quote(corpus)}"
    print(f"{corpus}: the scored corpus; query it with `{ask}`")
