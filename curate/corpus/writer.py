"""The only writer of a corpus: takes the lock, adds parts, keeps each row once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.corpus.corpus import Corpus, write_database
from curate.corpus.skips import Skips
from curate.corpus.views import MOST_COLUMNS, read_parquet
from curate.errors import CurateError
from curate.storage import leftovers, manifest, parts
from curate.storage.compatibility import check_compatible
from curate.storage.locking import locked
from curate.storage.manifest import FORMAT_VERSION, Manifest, ModelEntry, Run, Settings
from curate.storage.schema import SCORED, SCORES, SKIPPED, TOKENS, keyed
from curate.system.sql import readable_errors, spill_folder
from curate.system.stopping import held

FLUSH_SECONDS, FLUSH_SHARE, FLUSH_SECONDS_MOST = 5.0, 0.01, 60.0
"""The time between two parts: 5 s at first, then a hundredth of the run so far, and at most a
minute, which is what a killed run may lose. Four days of scoring make 6,000 parts, not 70,000."""
FLUSH_ROWS, FLUSH_TOKENS = 65_536, 4_000_000
"""The most tokens in memory; a token with its text takes about 50 bytes."""


class SeenExamples:
    """The ids of all examples so far: UUIDs of 16 bytes, from `column` of the parts in a folder."""

    def __init__(self, folder: Path, column: str = "example_id") -> None:
        self._connection = duckdb.connect(config={"temp_directory": spill_folder()})
        self._connection.execute("create table seen (id uuid)")
        if paths := parts.list_parts(folder):
            with readable_errors():
                self._connection.execute(
                    f"insert into seen select distinct {column} from {read_parquet(paths)}"
                )

    def new(self, table: pa.Table) -> pa.Table:
        """The rows that are new, each id once, in the order of source and row."""
        self._connection.register("incoming", table)
        # Ids in common first: to hash the few new ids and scan all seen ones is faster than the
        # reverse, also at 10^7 examples.
        fresh = self._connection.sql(
            "with known as (select id from seen semi join incoming on incoming.example_id::uuid = "
            "seen.id) select incoming.* from incoming anti join known on "
            "incoming.example_id::uuid = known.id "
            "qualify row_number() over (partition by example_id order by source, row) = 1 "
            "order by source, row"
        ).to_arrow_table()
        self._connection.register("fresh", fresh)
        self._connection.execute("insert into seen select example_id::uuid from fresh")
        return fresh.cast(table.schema)

    def kinds(self, examples: pa.Table) -> list[tuple[str, set[str]]]:
        """The keys of `meta`, each with the JSON types of its values."""
        self._connection.register("described", examples)
        found = self._connection.execute(
            "select each.key, list(distinct each.type) from described, json_each(meta) as each "
            "group by each.key order by each.key"
        ).fetchall()
        return [(name, set(kinds)) for name, kinds in found]


_ID = pa.binary(16)


def bare_parts(folder: Path) -> list[Path]:
    """The parts of a model's scores that have no tokens."""
    return [part for part in parts.list_parts(folder) if TOKENS[0].name not in _names(part)]


def _names(part: Path) -> list[str]:
    try:
        return list(pq.read_schema(part).names)
    except (pa.ArrowException, OSError):
        raise CurateError(
            f"{part}: can't be read; `curate status --verify` names the files that are damaged"
        ) from None


def _ids(part: Path) -> pa.ChunkedArray:
    return pq.read_table(part, columns=["example_id"])["example_id"].cast(_ID)


def _common(kinds: set[str]) -> str:
    """The SQL type of a column whose values have these types."""
    if len(kinds) == 1:
        return kinds.pop()
    return "JSON" if "JSON" in kinds else "DOUBLE" if kinds == {"BIGINT", "DOUBLE"} else "VARCHAR"


_TYPES = {name: name for name in ("VARCHAR", "BOOLEAN", "DOUBLE", "BIGINT")} | {"UBIGINT": "BIGINT"}
"""DuckDB's names for kinds of JSON, and the types of columns; an object or a list stays JSON."""


class Writer:
    """Adds to a corpus whose lock this process holds. Made by `open_for_writing`.

    `skips` are its skipped rows and examples.
    """

    def __init__(self, path: Path, record: Manifest) -> None:
        self.path = path
        self.manifest = record
        self._seen = SeenExamples(path / "examples")
        self.skips = Skips(path / "skipped")
        self._bare: dict[Path, dict[Path, pa.ChunkedArray]] = {}  # ids in parts without tokens

    def add_examples(self, table: pa.Table) -> pa.Table:
        """Store the examples that are new to the corpus, and return them."""
        fresh = self._seen.new(table)
        if fresh.num_rows:
            self._note_columns(fresh)
            parts.write_part(self.path / "examples", keyed(fresh))
        self.skips.note_read(table)
        return fresh

    def _note_columns(self, examples: pa.Table) -> None:
        """Add the sources' own columns to the manifest, with types that fit all values."""
        columns = dict(self.manifest.columns)
        for name, kinds in self._seen.kinds(examples):
            kinds = {_TYPES.get(kind, "JSON") for kind in kinds if kind != "NULL"}
            kinds |= {columns[name]} if name in columns else set()
            if kinds:
                columns[name] = _common(kinds)
        if len(columns) <= MOST_COLUMNS and columns != self.manifest.columns:
            self.manifest.columns = columns
            self.save()

    def add_scores(self, model: str, table: pa.Table) -> None:
        """Store scores of one model as a new part.

        Scores with tokens replace the same scores without. Those are removed first, so that a kill
        in between loses the scores of one part and never duplicates any.
        """
        rows = keyed(table)
        if TOKENS[0].name in table.schema.names:
            self._remove_bare(self.path / "scores" / model, rows["example_id"].cast(_ID))
        parts.write_part(self.path / "scores" / model, rows)

    def _remove_bare(self, folder: Path, ids: pa.ChunkedArray) -> None:
        """Remove scores without tokens; the first part that this empties frees its number."""
        if folder not in self._bare:
            self._bare[folder] = {part: _ids(part) for part in bare_parts(folder)}
        bare, is_free = self._bare[folder], False
        for part, keys in list(bare.items()):
            stays = pc.invert(pc.is_in(keys, ids.combine_chunks()))
            left = pc.sum(stays).as_py() or 0
            if left == len(keys):
                continue
            del bare[part]
            if not left and not is_free:
                parts.remove_part(part)
                is_free = True
                continue
            part = parts.rewrite_part(part, pq.read_table(part).filter(stays))
            if left:
                bare[part] = keys.filter(stays)

    def add_models(
        self, entries: dict[str, ModelEntry], settings: Settings, *, replace: bool = False
    ) -> list[str]:
        """Add models to the manifest, or reject those whose scores would not be comparable.

        Returns the models that changed under their names; `replace` discards their old scores.

        Raises:
            CurateError: what `check_compatible` raises.
        """
        changed = check_compatible(self.path, self.manifest, entries, settings, replace)
        for name in changed:  # if interrupted, the old entry stays, with fewer rows
            for part in reversed(parts.list_parts(self.path / "scores" / name)):
                parts.remove_part(part)
            self.skips.forget(name)
        self.manifest.settings = settings
        # A known model keeps its entry, with the backend and dtype of its last run.
        known = {n: e for n, e in self.manifest.models.items() if n not in changed}
        self.manifest.models = {**self.manifest.models, **entries, **known}
        self.save()
        if changed:
            write_database(Corpus(self.path))  # the old one names parts that are gone
        return changed

    def note_run(self, name: str, backend: str, dtype: str) -> str | None:
        """Record the backend and dtype of a model's run.

        Returns a warning if scores that it is compared with have another dtype.

        Raises:
            CurateError: its scores so far have another dtype or quantization.
        """
        entry = self.manifest.models[name]
        if entry.dtype not in ("", dtype) and self.has_scores(name):
            same = f"use --dtype {entry.dtype}"
            if entry.dtype == "unknown":  # a server's that was asked without --dtype
                same = "use the server that gave those scores, without --dtype"
            raise CurateError(
                f"model {name}: its scores are in {entry.dtype}, but this run computes in {dtype}, "
                f"which gives other numbers. To continue, {same}, or score under a new name."
            )
        self.manifest.models[name] = replace(entry, backend=backend, dtype=dtype)
        self.save()
        for other, of in self.manifest.models.items():
            if of.role != entry.role and of.dtype != dtype and self.has_scores(other):
                return (
                    f"{name}: scored in {dtype}, while {other} was scored in {of.dtype}. "
                    "Rounding then leaks into the gap. To avoid this, score all models with the "
                    "same options."
                )
        return None

    def has_scores(self, model: str) -> bool:
        """Whether any scores of a model are stored."""
        return bool(parts.list_parts(self.path / "scores" / model))

    def note_speed(self, name: str, examples: int, tokens: int, seconds: float) -> None:
        """Record a model's last run."""
        self.manifest.runs[name] = Run(examples, tokens, round(seconds, 3))
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        manifest.save(self.manifest, self.path)


def next_flush(began: float) -> float:
    """When a run next stores its rows: after seconds or, in runs of hours, a minute."""
    now = time.monotonic()
    return now + min(max(FLUSH_SECONDS, FLUSH_SHARE * (now - began)), FLUSH_SECONDS_MOST)


class ScoreSink:
    """Collects one model's scores and stores them periodically and at the end."""

    def __init__(self, writer: Writer, model: str, *, keep_tokens: bool = False) -> None:
        self._writer, self._model = writer, model
        self._keep_tokens = keep_tokens
        self._rows: list[tuple[Any, ...]] = []
        self._skipped: list[tuple[str, str]] = []
        self._tokens = 0
        self._began = time.monotonic()
        self._due = next_flush(self._began)

    def __enter__(self) -> ScoreSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(
        self,
        example_id: str,
        n_tokens: int,
        logprob: float,
        truncated: bool,
        token_logprobs: npt.NDArray[np.float32] | None = None,
        texts: list[str] | None = None,
    ) -> None:
        """Take one score; `logprob` is the sum over the answer's tokens, in nats.

        The tokens' log-probabilities and texts are stored if the corpus keeps tokens.
        """
        kept = (token_logprobs, texts) if self._keep_tokens else ()
        self._rows.append((example_id, n_tokens, logprob, truncated, *kept))
        self._tokens += n_tokens if self._keep_tokens else 0
        self._flush_if_due()

    def skip(self, example_id: str, reason: str) -> None:
        """Record that this model can't score this example; `reason` may be any server's text."""
        self._skipped.append((example_id, reason.encode("utf-8", "backslashreplace").decode()))
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        full = len(self._rows) + len(self._skipped) >= FLUSH_ROWS or self._tokens >= FLUSH_TOKENS
        if full or time.monotonic() >= self._due:
            self.flush()

    @held()
    def flush(self) -> None:
        """Store what was collected; a stop waits for it.

        The rows are removed from memory first, so an error may lose rows but never duplicates one.
        """
        scores, self._rows = self._rows, []
        skips, self._skipped = self._skipped, []
        self._tokens = 0
        if scores:
            columns = [list(column) for column in zip(*scores, strict=True)]
            schema = SCORED if self._keep_tokens else SCORES
            self._writer.add_scores(self._model, pa.table(columns, schema=schema))
        if skips:
            rows = [{"example_id": id, "model": self._model, "reason": why} for id, why in skips]
            self._writer.skips.add(pa.Table.from_pylist(rows, schema=SKIPPED))
        self._due = next_flush(self._began)


@contextmanager
def open_for_writing(path: Path) -> Iterator[Writer]:
    """Lock a corpus folder (created if missing) and yield its writer.

    At the end, even after an error, `corpus.duckdb` is rewritten for what is stored.

    Raises:
        CurateError: the folder is not a corpus, has another format, or is being written to.
    """
    with locked(path):
        leftovers.sweep(path)
        exists = (path / manifest.NAME).exists()
        writer = Writer(path, manifest.load(path) if exists else Manifest(FORMAT_VERSION))
        writer.save()
        try:
            yield writer
        except BaseException:
            with suppress(CurateError):  # report the first error, not this one
                write_database(Corpus(path))
            raise
        write_database(Corpus(path))
