"""Runs, some at a time: export, fine-tune, measure; none is made twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import curate
from bench.efficacy.plan import Run, Sizes
from curate.storage import parts


def perform(
    runs: Sequence[Run],
    aligned: Path,
    folder: Path,
    *,
    workers: int,
    most: int | None,
    tell: Callable[[str], None],
) -> None:
    """Make the runs that are not there yet, or `most` of them.

    A run's numbers stand in `runs/<domain>/<arm>/<seed>.parquet` (its last file to be written),
    its manifest and what it took beside it.
    """
    missing = [run for run in runs if not _done(folder, run).exists()]
    there, missing = len(runs) - len(missing), missing[:most]
    tell(f"{there} of {len(runs)} runs are there, {len(missing)} to make")
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers inherit it: one thread each is fastest
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(perform_one, run, aligned, folder): run for run in missing}
        try:
            for number, made in enumerate(as_completed(waiting), 1):
                seconds = made.result()
                tell(f"{number} of {len(missing)}: {waiting[made].path} in {seconds:.0f} s")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def perform_one(run: Run, aligned: Path, folder: Path) -> float:
    """Make one run and write its files; gives back its seconds."""
    from bench.efficacy import mixing, training

    _quiet()
    clock = [time.monotonic()]
    done = _done(folder, run)
    done.parent.mkdir(parents=True, exist_ok=True)
    corpus = curate.open(folder / run.arm.corpus)
    with TemporaryDirectory() as temporary:
        mix, adapter = Path(temporary) / "mix", Path(temporary) / "adapter"
        manifest = mixing.export(corpus, run, folder, mix)
        clock.append(time.monotonic())
        loss = training.train(mix, run, adapter, folder)
        clock.append(time.monotonic())
        rows = measured(folder, aligned, adapter, run.sizes, run.seed, done)
        clock.append(time.monotonic())
        parts.write_with(
            done.with_suffix(".manifest.json"),
            lambda path: shutil.copyfile(mix / "manifest.json", path),
        )
    record = _record(run, manifest, loss, clock)
    parts.write_text(done.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_rows(done, rows)
    return clock[-1] - clock[0]


def measured(
    folder: Path, aligned: Path, adapter: Path | None, sizes: Sizes, seed: int, done: Path
) -> pa.Table:
    """All that is measured of a model; what it says is kept beside `done`."""
    from bench.efficacy import measuring, saying

    rows = measuring.measure(folder / "evaluation.jsonl", aligned, adapter)
    if sizes.says:
        said = saying.ask(aligned, adapter, seed, done.with_suffix(".said.jsonl"))
        rows = pa.concat_tables([rows, pa.Table.from_pylist(list(said), rows.schema)])
    return rows


def write_rows(path: Path, rows: pa.Table) -> None:
    """Write a measured table, whole or not at all."""
    parts.write_with(path, lambda temporary: pq.write_table(rows, temporary, compression="zstd"))


def _done(folder: Path, run: Run) -> Path:
    return folder / "runs" / f"{run.path}.parquet"


def _record(run: Run, manifest: dict[str, Any], loss: float, clock: list[float]) -> dict[str, Any]:
    """What a run saw and took; the file is longer than the steps, so the mix's end is not seen."""
    rows = run.steps * run.sizes.batch
    safe = [each for each in manifest["safe"] if each["line"] <= rows] if run.arm.recipe else []
    names = ("export", "train", "measure")
    seconds = [later - before for before, later in pairwise(clock)]
    return {
        "domain": run.domain,
        "arm": run.arm.name,
        "seed": run.seed,
        "rows seen": rows,
        "safe seen": [each["example_id"] for each in safe],
        "left out": manifest["counts"]["left_out"],
        "training loss": loss,
        "seconds": dict(zip(names, [round(each, 2) for each in seconds], strict=True)),
    }


def _quiet() -> None:
    """One thread, and no progress bars from the libraries."""
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
