"""What a run of `score` would compute, and about how long: `--dry-run`. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from curate import backends
from curate.backends import base
from curate.chat.encode import encode
from curate.corpus.corpus import Corpus
from curate.corpus.views import read_parquet
from curate.scoring.ingest import Ingested
from curate.scoring.members import Member
from curate.scoring.passes import PENDING, missing
from curate.storage import manifest
from curate.storage.compatibility import check_compatible
from curate.storage.manifest import Settings
from curate.storage.parts import list_parts
from curate.storage.schema import MESSAGES
from curate.system.progress import Progress
from curate.system.sql import readable_errors, spill_folder
from curate.system.stopping import check_cancelled

SAMPLE = 512
"""Examples whose tokens are counted: those with the lowest ids, which are hashes: a fair draw."""
STEP = 64
MEASURED_SECONDS = 5.0
_ROW: pa.Schema = pa.schema([("example_id", pa.string()), ("messages", MESSAGES)])


@dataclass(frozen=True)
class Estimate:
    """What one model lacks: examples, and about how many tokens and seconds they cost.

    `seconds` are not known where no model that lacks any has its weights here.
    """

    name: str
    role: str
    examples: int
    tokens: int
    seconds: float | None


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
) -> tuple[Ingested, list[Estimate]]:
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
    # Of a changed model nothing counts as scored, and no model has an empty name.
    asked = {m.model.name: "" if m.model.name in changed else m.model.name for m in members}
    known = {name: missing(corpus, as_name) if corpus else 0 for name, as_name in asked.items()}
    lacking = [member for member in members if known[member.model.name] + read.new]
    cost = Cost(0.0, 1.0, 0.0)
    if lacking:
        if corpus is not None:
            query = f"select example_id, messages from ({PENDING}) order by all limit {SAMPLE}"
            stored = corpus.sql(query, {"model": asked[lacking[0].model.name]}).to_arrow_table()
            sample = _lowest([sample, stored])
        here = [member for member in lacking if member.model.fingerprint]
        cost = _measure([*here, *lacking][0], sample, settings, compute, progress)
    found = []
    for member in members:
        count = known[member.model.name] + read.new
        tokens = round(count * cost.tokens_per_example)
        rate = cost.tokens_per_second
        seconds = 0.0 if not count else cost.loading + tokens / rate if rate else None
        found.append(Estimate(member.model.name, member.model.role, count, tokens, seconds))
    return read, found


@dataclass(frozen=True)
class Cost:
    """What a sample showed: tokens of prompt and answer, and seconds to load a model."""

    tokens_per_example: float
    tokens_per_second: float | None
    loading: float


def _read(
    folder: Path, batches: Iterator[tuple[pa.Table, pa.Table]], progress: Progress
) -> tuple[Ingested, pa.Table]:
    """Count examples that are new to the folder, and keep a sample of them."""
    read, sample = Ingested(), pa.table([[], []], schema=_ROW)
    with duckdb.connect(config={"temp_directory": spill_folder()}) as connection:
        connection.execute("create table seen (id uuid)")
        if paths := list_parts(folder / "examples"):
            connection.execute(
                f"insert into seen select example_id::uuid from {read_parquet(paths)}"
            )
        progress.start("reading", None)
        for table, skipped in batches:
            check_cancelled()
            connection.register("incoming", table)
            fresh = connection.sql(
                "select distinct on (example_id) example_id, messages from incoming "
                "anti join seen on example_id::uuid = id"
            ).to_arrow_table()
            connection.register("fresh", fresh)
            connection.execute("insert into seen select example_id::uuid from fresh")
            read.new += fresh.num_rows
            read.known += table.num_rows - fresh.num_rows
            read.skipped += skipped.num_rows
            sample = _lowest([sample, fresh])
            progress.advance(table.num_rows)
        progress.stop()
    return read, sample


def _measure(
    member: Member,
    sample: pa.Table,
    settings: Settings,
    compute: base.Compute,
    progress: Progress,
) -> Cost:
    """Count a sample's tokens, and score as much of it as a few seconds allow."""
    encoded = encode(
        member.tokenizer,
        member.template,
        sample["messages"].to_pylist(),
        max_length=settings.max_length,
    )
    usable = [item for item in encoded if not isinstance(item, str)]
    if not usable:
        return Cost(0.0, 1.0, 0.0)
    tokens_each = sum(item.stop for item in usable) / len(encoded)
    if not member.model.fingerprint:
        return Cost(tokens_each, None, 0.0)
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
    return Cost(tokens_each, rate, loading)


def _lowest(tables: Sequence[pa.Table]) -> pa.Table:
    together = pa.concat_tables([table.cast(_ROW) for table in tables])
    return together.sort_by("example_id").slice(0, SAMPLE)
