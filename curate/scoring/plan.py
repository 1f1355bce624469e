"""What a run of `score` would compute, and about how long: `--dry-run`. Nothing is written."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from curate import backends
from curate.backends import base
from curate.chat.encode import Encoded, encode
from curate.corpus.corpus import Corpus
from curate.corpus.writer import SeenExamples
from curate.models.resolve import Model
from curate.scoring.collect import ModelRun
from curate.scoring.ingest import Ingested
from curate.scoring.members import Work
from curate.scoring.passes import WINDOW, missing, pending
from curate.storage import manifest
from curate.storage.compatibility import check_compatible
from curate.storage.schema import MESSAGES
from curate.system.progress import Progress
from curate.system.sql import readable_errors
from curate.system.stopping import check_cancelled

SAMPLE = 512
"""Examples whose tokens are counted: those with the lowest ids, which are hashes: a fair draw."""
STEP, SHARE = 16, 40
"""Examples that are timed together; in all, this part of what the run would score."""
MEASURED_SECONDS = 5.0
Spread = tuple[float, float]
_ROW: pa.Schema = pa.schema([("example_id", pa.string()), ("messages", MESSAGES)])


@readable_errors()  # a damaged part may come up late
def plan(
    work: Work, batches: Iterator[tuple[pa.Table, pa.Table]], wanted: pa.Table | None = None
) -> tuple[Ingested, list[ModelRun], Spread]:
    """Read what a run would read, count what it would score, and time a sample on one model.

    That is the first model that lacks scores and whose weights are on disk; the others are assumed
    to be as fast. Also returns the range of the estimates, as factors of them. `wanted`: see
    `missing`.

    Raises:
        CurateError: whatever would stop the run itself.
    """
    corpus, changed, members = None, list[str](), work.members
    if (work.corpus / manifest.NAME).exists():
        corpus = Corpus(work.corpus)
        entries = {member.model.name: member.entry for member in members}
        changed = check_compatible(
            work.corpus, corpus.manifest, entries, work.settings, work.replace
        )
    read, sample = _read(work.corpus, batches, work.progress)
    runs = [ModelRun(member.model.name, member.model.role) for member in members]
    # Nothing of a changed model counts as scored; no model has an empty name.
    stored_as = ["" if run.name in changed else run.name for run in runs]
    for run, name in zip(runs, stored_as, strict=True):
        run.scored = read.new
        if corpus:
            run.scored += missing(corpus, name, work.keep_tokens, wanted)
    lacking = [at for at, run in enumerate(runs) if run.scored]
    if not lacking:
        return read, runs, (1.0, 1.0)
    if corpus is not None:
        stored = pending(corpus, stored_as[lacking[0]], work.keep_tokens, wanted)
        stored = stored.order("all").limit(SAMPLE)
        sample = _lowest(sample, stored.to_arrow_table())
    here = [at for at in lacking if members[at].model.fingerprint]
    timed = members[[*here, *lacking][0]]
    encoded = encode(
        timed.tokenizer,
        timed.template,
        sample["messages"].to_pylist(),
        max_length=work.settings.max_length,
    )
    usable = [item for item in encoded if not isinstance(item, str)]
    for reason, count in Counter(item for item in encoded if isinstance(item, str)).most_common(3):
        read.notes.append(
            f"{count} of {len(encoded)} examples in a sample can't be scored: {reason}"
        )
    per_example = sum(item.stop for item in usable) / len(encoded)
    for run in runs:
        run.tokens = round(run.scored * per_example)
    if not usable or not timed.model.fingerprint:  # its weights aren't here
        return read, runs, (1.0, 1.0)
    return read, runs, _add_seconds(runs, timed.model, usable, work.compute, work.progress)


def _add_seconds(
    runs: Sequence[ModelRun],
    model: Model,
    sample: Sequence[Encoded],
    compute: base.Compute,
    progress: Progress,
) -> Spread:
    """Estimate the seconds of all runs by timing a part of the sample on one model."""
    pairs = sum(run.scored for run in runs)
    progress.note(f"{model.name}: loading {model.reference} to time a sample")
    tried = sample[: max(STEP, pairs // SHARE)]
    measured = backends.on_site(_measure, [model], compute, progress, tried)
    loading = max(seconds for seconds, _ in measured)
    rates = [rate for _, found in measured for rate in found]
    rate = statistics.harmonic_mean(rates)
    for run in runs:
        if run.scored:
            workers = min(backends.workers(compute), -(-run.scored // WINDOW))
            run.loading, run.seconds = loading, loading + run.tokens / rate / workers
    return min(0.8, rate / max(rates)), max(1.25, rate / min(rates))


def _read(
    folder: Path, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> tuple[Ingested, pa.Table]:
    """Count examples that are new to the folder, and keep a sample of them."""
    read, sample, seen = Ingested(), _ROW.empty_table(), SeenExamples(folder / "examples")
    progress.start("reading", None)
    try:
        for table, skipped in batches:
            check_cancelled()
            fresh = seen.new(table)
            read.add(table, fresh, skipped)
            sample = _lowest(sample, fresh)
    finally:
        progress.stop()
    return read, sample


def _measure(
    models: Sequence[Model], compute: base.Compute, progress: Progress, usable: Sequence[Encoded]
) -> tuple[float, list[float]]:
    """Seconds to load a model, and tokens a second in each step of a few seconds' scoring."""
    began = time.perf_counter()
    backend = backends.open_backend(models, compute, progress.note)
    rates = []
    try:
        loading = time.perf_counter() - began
        for _ in backend.score(usable[:STEP]):  # the first pass is slower: memory, kernels
            check_cancelled()
        started = time.perf_counter()
        for start in range(0, len(usable), STEP):
            step = usable[start : start + STEP]
            began = time.perf_counter()
            for _ in backend.score(step):
                check_cancelled()
            now = time.perf_counter()
            rates.append(sum(item.stop for item in step) / (now - began))
            if now - started > MEASURED_SECONDS:
                break
    finally:
        backend.close()
    return loading, rates


def _lowest(*tables: pa.Table) -> pa.Table:
    together = pa.concat_tables([table.select(_ROW.names).cast(_ROW) for table in tables])
    return together.sort_by("example_id").slice(0, SAMPLE)
