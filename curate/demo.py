"""The whole way on bundled models and data: score, rank, mix. Offline."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from curate.corpus import open_corpus
from curate.errors import CurateError
from curate.queries import ask
from curate.scoring import Summary, score
from curate.selection import Recipe
from curate.storage.manifest import NAME
from curate.terminal.progress import Progress

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
        record = opened.export(mix, Recipe(fraction=0.05, into=str(narrow)), force=earlier)
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
    if (corpus / NAME).exists():
        return True
    for ending in ("", ".manifest.json", ".left-out.csv"):
        path = mix.with_name(mix.name + ending)
        if path.exists() or path.is_symlink():
            raise CurateError(f"{path}: exists, and no demo wrote it; name another --dir")
    return False
