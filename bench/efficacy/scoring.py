"""What every run shares, made once: data, scored pools, and the model before fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import curate
from bench.efficacy import data, measuring, running, steering
from bench.efficacy.plan import DOMAINS, SEEDS, Sizes
from curate.errors import CurateError

OWN_TOKENS = 160
"""Most tokens of the aligned model's own answers; a longer one is not used."""


def prepare(
    datasets: Path,
    aligned: Path,
    adapters: Path,
    folder: Path,
    sizes: Sizes,
    tell: Callable[[str], None],
) -> None:
    """Write the data, score the pools with `curate score`, measure the aligned model.

    Raises:
        CurateError: the folder holds an experiment under other settings.
    """
    if not (folder / "data.json").exists():
        data.prepare(datasets, aligned, folder, (0, *SEEDS), sizes)
    made = json.loads((folder / "data.json").read_text(encoding="utf-8"))["settings"]
    if made != asdict(sizes):
        raise CurateError(f"{folder}: was made under {made}, not {asdict(sizes)}: name another")
    before = folder / "before.parquet"
    if not before.exists():
        tell("scoring the pool")
        _score(folder / "pool", folder / "corpus", aligned, adapters)
        if sizes.own:
            tell("answering some of its prompts")
            _score(_own(folder, aligned, sizes.own), folder / "own", aligned, adapters)
        if sizes.says:
            steering.write(folder, aligned)
        running.write_rows(before, running.measured(folder, aligned, None, sizes, 0, before))
    tell("the pool is scored")


def _score(source: Path, corpus: Path, aligned: Path, adapters: Path) -> None:
    curate.score(
        [str(source)],
        corpus,
        aligned=f"aligned={aligned}",
        misaligned=[str(adapters / name) for name in DOMAINS],
        compute=measuring.compute(),
    )


def _own(folder: Path, aligned: Path, most: int) -> Path:
    """The aligned model's own answers to prompts of the pool, two thirds from the safety set."""
    wanted = {"safety": most * 2 // 3, "instruct": most // 6, "roleplay": most // 6}
    lines = chain.from_iterable(
        (folder / "pool" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
        for name, rows in wanted.items()
    )
    prompts, answers = folder / "own-prompts.jsonl", folder / "own-answers"
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    curate.answer(
        [str(prompts)],
        answers,
        model=f"aligned={aligned}",
        max_tokens=OWN_TOKENS,
        compute=measuring.compute(),
    )
    return answers
