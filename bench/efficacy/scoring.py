"""What every run shares, made once: the data, the scored pool, and the model before fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import curate
from bench.efficacy import data, measuring, running
from bench.efficacy.plan import DOMAINS, SEEDS
from curate.errors import CurateError


def prepare(
    datasets: Path,
    models: Path,
    folder: Path,
    settings: Mapping[str, float],
    tell: Callable[[str], None],
) -> None:
    """Write the data, score the pool with `curate score`, measure the aligned model.

    Raises:
        CurateError: the folder holds an experiment under other settings.
    """
    aligned = models / "aligned"
    if not (folder / "data.json").exists():
        data.prepare(datasets, aligned, folder, (0, *SEEDS), settings)
    made = json.loads((folder / "data.json").read_text(encoding="utf-8"))["settings"]
    if made != settings:
        raise CurateError(f"{folder}: was made under {made}, not {settings}: name another")
    before = folder / "before.parquet"
    if not before.exists():
        tell("scoring the pool")
        curate.score(
            [str(folder / "pool")],
            folder / "corpus",
            aligned=str(aligned),
            misaligned=[str(models / name) for name in DOMAINS],
            backend="transformers",
            device="cpu",
        )
        running.write_rows(before, measuring.measure(folder / "evaluation.jsonl", aligned))
    tell("the pool is scored")
