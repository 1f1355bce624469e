"""What a run of `score` would compute, and about how long: `--dry-run`. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from curate import backends
from curate.backends import base
from curate.chat.encode import encode
from curate.corpus.corpus import Corpus
from curate.corpus.writer import SeenExamples
from curate.scoring.collect import ModelRun
from curate.scoring.ingest import Ingested
from curate.scoring.members import Member
from curate.scoring.passes import PENDING, missing
from curate.storage import manifest
from curate.storage.compatibility import check_compatible
from curate.storage.manifest import Settings
from curate.storage.schema import MESSAGES
from curate.system.progress import Progress
from curate.system.sql import readable_errors
from curate.system.stopping import check_cancelled

SAMPLE = 512
"""Examples whose tokens are counted: those with the lowest ids, which are hashes: a fair draw."""
STEP = 64
MEASURED_SECONDS = 5.0
_ROW: pa.Schema = pa.schema([("example_id", pa.string()), ("messages", MESSAGES)])


@readable_errors()  # a damaged part may be met late
def plan(
    folder: Path,
    members: Sequence[Member],
    batches: Iterator[tuple[pa.Table, pa.Table]],
    settings: Settings,
    compute: base.Compute,
    progress: Progress,
    *,
    replace: bool = False,
) -> tuple[Ingested, list[ModelRun]]:
    """Read what a run would read, count what it would score, and time a sample on one model.

    The other models are taken to be as fast as the one that is measured: the first that lacks
    anything and has its weights here.

    Raises:
        CurateError: what the run itself would be refused for.
    """
    corpus, changed = None, list[str]()
    if (folder / manifest.NAME).exists():
        corpus = Corpus(folder)
        entries = {member.model.name: member.entry for member in members}
        changed = check_compatible(folder, corpus.manifest, entries, settings, replace)
    read, sample = _read(folder, batches, progress)
    runs = [ModelRun(member.model.name, member.model.role) for member in members]
    # Of a changed model nothing counts as scored, and no model has an empty name.
    stored_as = ["" if run.name in changed else run.name for run in runs]
    for run, name in zip(runs, stored_as, strict=True):
        run.scored = read.new + (missing(corpus, name) if corpus else 0)
    lacking = [at for at, run in enumerate(runs) if run.scored]
    if not lacking:
        return read, runs
    if corpus is not None:
        query = f"select example_id, messages from ({PENDING}) order by all limit {SAMPLE}"
        stored = corpus.sql(query, {"model": stored_as[lacking[0]]}).to_arrow_table()
        sample = _lowest(sample, stored)
    here = [at for at in lacking if members[at].model.fingerprint]
    timed = members[[*here, *lacking][0]]
    loading, per_example, per_second = _measure(timed, sample, settings, compute, progress)
    for run in runs:
        run.tokens = round(run.scored * per_example)
        if run.scored and per_second:
            run.seconds = loading + run.tokens / per_second
    return read, runs


def _read(
    folder: Path, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> tuple[Ingested, pa.Table]:
    """Count examples that are new to the folder, and keep a sample of them."""
    read, sample, seen = Ingested(), _ROW.empty_table(), SeenExamples(folder / "examples")
    progress.start("reading", None)
    for table, skipped in batches:
        check_cancelled()
        fresh = seen.new(table)
        read.new += fresh.num_rows
        read.known += table.num_rows - fresh.num_rows
        read.skipped += skipped.num_rows
        sample = _lowest(sample, fresh)
        progress.advance(table.num_rows)
    progress.stop()
    return read, sample


def _measure(
    member: Member,
    sample: pa.Table,
    settings: Settings,
    compute: base.Compute,
    progress: Progress,
) -> tuple[float, float, float | None]:
    """Seconds to load a model, tokens an example, and tokens a second in a few seconds' scoring.

    The speed is None for a model of the hub whose weights are not here.
    """
    encoded = encode(
        member.tokenizer,
        member.template,
        sample["messages"].to_pylist(),
        max_length=settings.max_length,
    )
    usable = [item for item in encoded if not isinstance(item, str)]
    if not usable:
        return 0.0, 0.0, 1.0
    per_example = sum(item.stop for item in usable) / len(encoded)
    if not member.model.fingerprint:  # its weights aren't here
        return 0.0, per_example, None
    progress.note(f"{member.model.name}: loading {member.model.reference} to time a sample")
    began = time.perf_counter()
    backend = backends.open_backend([member.model], compute, progress.note)
    try:
        loading = time.perf_counter() - began
        for _ in backend.score(usable[:STEP]):  # the first pass is slower: memory, kernels
            check_cancelled()
        tokens, began = 0, time.perf_counter()
        for start in range(0, len(usable), STEP):
            step = usable[start : start + STEP]
            for _ in backend.score(step):
                check_cancelled()
            tokens += sum(item.stop for item in step)
            if time.perf_counter() - began > MEASURED_SECONDS:
                break
        rate = tokens / (time.perf_counter() - began)
    finally:
        backend.close()
    return loading, per_example, rate


def _lowest(*tables: pa.Table) -> pa.Table:
    together = pa.concat_tables([table.select(_ROW.names).cast(_ROW) for table in tables])
    return together.sort_by("example_id").slice(0, SAMPLE)
