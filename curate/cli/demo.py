"""`curate demo`: every step on bundled models and data."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from curate.cli.export import exported
from curate.cli.options import JsonOption, QuietOption, option, progress
from curate.cli.score import kept
from curate.cli.tables import print_json, table
from curate.errors import CurateError

if TYPE_CHECKING:
    from curate.scoring.score import Summary
    from curate.system.progress import Progress


def demo(
    directory: Annotated[Path, option("Where the demo writes.", "DIR", names=["--dir"])] = Path(
        "curate-demo"
    ),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run every step on bundled models and data, offline.

    Example: curate demo --dir /tmp/curate-demo
    """
    with kept(directory / "corpus"):
        made = run(directory, progress(quiet or as_json))
    if as_json:
        print_json(asdict(made))
    else:
        print_demo(made)


MISALIGNED = ("medical", "legal", "code")


@dataclass(frozen=True)
class Demo:
    """What the demo made: the run, the ranking's top and the export's manifest."""

    commands: tuple[str, str]
    summary: Summary
    columns: list[str]
    top: list[tuple[Any, ...]]
    export: dict[str, Any]


def run(directory: Path, progress: Progress) -> Demo:
    """Score the bundled examples with the bundled models and mix the best into a narrow set.

    What an earlier demo wrote there is replaced.

    Raises:
        CurateError: the directory can't be written or holds something else, or the package was
            installed without its data.
    """
    from importlib import resources

    from curate.corpus.corpus import open_corpus
    from curate.corpus.queries import ask
    from curate.export.export import export
    from curate.scoring.score import score
    from curate.selection.recipe import Recipe

    with resources.as_file(resources.files("curate.data")) as data:
        if not (data / "models" / "aligned" / "config.json").exists():
            raise CurateError(f"{data}: the demo's models are missing; install curate again")
        corpus, mix, narrow = directory / "corpus", directory / "mix.jsonl", data / "narrow.jsonl"
        earlier = _is_earlier(corpus, mix)
        models = data / "models"
        summary = score(
            [str(data / "examples")],
            corpus,
            aligned=str(models / "aligned"),
            misaligned=[str(models / name) for name in MISALIGNED],
            device="cpu",
            keep_tokens=True,
            progress=progress,
        )
        opened = open_corpus(corpus)
        record = export(opened, mix, Recipe(fraction=0.05, into=str(narrow)), force=earlier)
        columns = ["rank", "gap", "aligned", "misaligned", "prompt", "answer"]
        top = ask(opened, "top_gaps", ["top=10"])
        commands = (
            f"curate score {data / 'examples'} -c {corpus} --keep-tokens "
            f"--aligned {models / 'aligned'} "
            + " ".join(f"--misaligned {models / name}" for name in MISALIGNED),
            f"curate export -c {corpus} --fraction 0.05 --into {narrow} -o {mix}",
        )
        return Demo(commands, summary, columns, top.select(*columns).fetchall(), record)


def _is_earlier(corpus: Path, mix: Path) -> bool:
    """Whether a demo ran here before. Raises CurateError where a mix is not its own."""
    from curate.storage.manifest import NAME

    if (corpus / NAME).exists():
        return True
    for ending in ("", ".manifest.json", ".left-out.csv"):
        path = mix.with_name(mix.name + ending)
        if path.exists() or path.is_symlink():
            raise CurateError(f"{path}: exists, and no demo wrote it; name another --dir")
    return False


def print_demo(made: Demo) -> None:
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
    print(
        f"{made.summary.corpus}: the scored corpus; ask it with `curate sql top_gaps -c {corpus}`"
    )
