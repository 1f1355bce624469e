"""The one writer of a corpus: takes the lock, adds parts, keeps every row once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
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

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FLUSH_SECONDS, FLUSH_SHARE, FLUSH_SECONDS_MOST = 5.0, 0.01, 60.0
"""Between two parts: 5 s at first, then a hundredth of a model's run so far, and at most a minute,
which is what a killed run may lose. Four days of scoring are some 6,000 parts, not 70,000."""
FLUSH_ROWS, FLUSH_TOKENS = 65_536, 4_000_000
"""Held at most; a token with its text takes some 50 bytes."""


class SeenExamples:
    """The ids of the examples that a corpus holds or that came since: UUIDs, 16 bytes each.

    `column` of the parts in the folder holds them.
    """

    def __init__(self, folder: Path, column: str = "example_id") -> None:
        self._connection = duckdb.connect(config={"temp_directory": spill_folder()})
        self._connection.execute("create table seen (id uuid)")
        if paths := parts.list_parts(folder):
            with readable_errors():
                self._connection.execute(
                    f"insert into seen select distinct {column} from {read_parquet(paths)}"
                )

    def new(self, table: pa.Table) -> pa.Table:
        """The rows that weren't seen before, each id once, in the order of source and row."""
        self._connection.register("incoming", table)
        # Ids in common first: hashing the few new ones and passing over all seen ones is faster
        # than the other way round, and stays so at 10^7.
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
        """The keys of `meta`, each with the kinds of JSON that its values are."""
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
    """Adds to a corpus whose lock this process holds. Made by `open_for_writing`."""

    def __init__(self, path: Path, record: Manifest) -> None:
        self.path = path
        self.manifest = record
        self._seen = SeenExamples(path / "examples")
        self._skips = Skips(path / "skipped")
        self._bare: dict[Path, dict[Path, pa.ChunkedArray]] = {}  # ids in parts without tokens

    def add_examples(self, table: pa.Table) -> pa.Table:
        """Store the examples that the corpus doesn't hold yet; gives those back."""
        fresh = self._seen.new(table)
        if fresh.num_rows:
            self._note_columns(fresh)
            parts.write_part(self.path / "examples", keyed(fresh))
        self._skips.note_read(table)
        return fresh

    def _note_columns(self, examples: pa.Table) -> None:
        """Enter the sources' own columns into the manifest, with types that fit all values."""
        columns = dict(self.manifest.columns)
        for name, kinds in self._seen.kinds(examples):
            kinds = {_TYPES.get(kind, "JSON") for kind in kinds if kind != "NULL"}
            kinds |= {columns[name]} if name in columns else set()
            if kinds:
                columns[name] = _common(kinds)
        if len(columns) <= MOST_COLUMNS and columns != self.manifest.columns:
            self.manifest.columns = columns
            self.save()

    def add_skipped(self, table: pa.Table) -> int:
        """Record rows that can't be used, each reason once; gives back how many are new."""
        return self._skips.add(table)

    def drop_mended(self) -> None:
        """After reading: forget skips of rows that could be used this time."""
        self._skips.drop_mended()

    def add_scores(self, model: str, table: pa.Table) -> None:
        """Store scores of one model as a part of their own.

        Scores with tokens take the place of the same ones without: these go first, so that a kill
        in between costs a part's scores, and none is there twice.
        """
        rows = keyed(table)
        if TOKENS[0].name in table.schema.names:
            self._remove_bare(self.path / "scores" / model, rows["example_id"].cast(_ID))
        parts.write_part(self.path / "scores" / model, rows)

    def _remove_bare(self, folder: Path, ids: pa.ChunkedArray) -> None:
        """Remove scores without tokens; the first part that this empties leaves its number free."""
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
        """Enter models into the manifest, or refuse those whose scores would not fit the others.

        Gives back the models that changed under their names; `replace` discards their old scores.

        Raises:
            CurateError: what `check_compatible` raises.
        """
        changed = check_compatible(self.path, self.manifest, entries, settings, replace)
        for name in changed:  # broken off, it leaves the old entry and fewer rows
            for part in reversed(parts.list_parts(self.path / "scores" / name)):
                parts.remove_part(part)
            self._skips.forget(name)
        self.manifest.settings = settings
        # A model that is known keeps its entry, with the backend and dtype of its last run.
        known = {n: e for n, e in self.manifest.models.items() if n not in changed}
        self.manifest.models = {**self.manifest.models, **entries, **known}
        self.save()
        if changed:
            write_database(Corpus(self.path))  # the old one names parts that are gone
        return changed

    def note_run(self, name: str, backend: str, dtype: str) -> str | None:
        """Record with what backend and dtype a model is scored.

        Gives back what a user should know if scores that it is compared with are of another dtype.

        Raises:
            CurateError: its scores so far are of another dtype, or were quantized otherwise.
        """
        entry = self.manifest.models[name]
        if entry.dtype not in ("", dtype) and self.has_scores(name):
            same = f"give just --dtype {entry.dtype}"
            if entry.dtype == "unknown":  # a server's that was asked without --dtype
                same = "go on with the server that gave those, without --dtype"
            raise CurateError(
                f"model {name}: has scores in {entry.dtype}, and this run computes in {dtype}, "
                f"whose numbers differ; {same}, or score under a new name"
            )
        self.manifest.models[name] = replace(entry, backend=backend, dtype=dtype)
        self.save()
        for other, of in self.manifest.models.items():
            if of.role != entry.role and of.dtype != dtype and self.has_scores(other):
                return (
                    f"{name}: its dtype is {dtype}, and that of {other}'s scores is {of.dtype}: "
                    "what they round differently counts as gap; score all models with the same "
                    "options to keep it out"
                )
        return None

    def has_scores(self, model: str) -> bool:
        """Whether anything is stored of a model."""
        return bool(parts.list_parts(self.path / "scores" / model))

    def note_speed(self, name: str, examples: int, tokens: int, seconds: float) -> None:
        """Record what a model's last run did: tokens of prompt and answer, loading included."""
        self.manifest.runs[name] = Run(examples, tokens, round(seconds, 3))
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        manifest.save(self.manifest, self.path)


def next_flush(began: float) -> float:
    """When a run stores its rows next: in seconds, and in runs of hours in a minute."""
    now = time.monotonic()
    return now + min(max(FLUSH_SECONDS, FLUSH_SHARE * (now - began)), FLUSH_SECONDS_MOST)


class ScoreSink:
    """Collects one model's scores and stores them now and then, at the latest at its end."""

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

        The tokens' own log-probs and texts are stored if tokens are kept.
        """
        kept = (token_logprobs, texts) if self._keep_tokens else ()
        self._rows.append((example_id, n_tokens, logprob, truncated, *kept))
        self._tokens += n_tokens if self._keep_tokens else 0
        self._flush_if_due()

    def skip(self, example_id: str, reason: str) -> None:
        """Record that this model can't score this example, and why: a server may say anything."""
        self._skipped.append((example_id, reason.encode("utf-8", "backslashreplace").decode()))
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        full = len(self._rows) + len(self._skipped) >= FLUSH_ROWS or self._tokens >= FLUSH_TOKENS
        if full or time.monotonic() >= self._due:
            self.flush()

    @held()
    def flush(self) -> None:
        """Store what was collected; a stop waits for it.

        It is taken out first: an error in between may lose rows, and never stores one twice.
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
            self._writer.add_skipped(pa.Table.from_pylist(rows, schema=SKIPPED))
        self._due = next_flush(self._began)


@contextmanager
def open_for_writing(path: Path) -> Iterator[Writer]:
    """Lock a corpus folder (made if it isn't there) and give its writer.

    At the end, also after an error, `corpus.duckdb` is written again over what is stored.

    Raises:
        CurateError: the folder is something else, is of another format, or is being written.
    """
    with locked(path):
        leftovers.sweep(path)
        exists = (path / manifest.NAME).exists()
        writer = Writer(path, manifest.load(path) if exists else Manifest(FORMAT_VERSION))
        writer.save()
        try:
            yield writer
        except BaseException:
            with suppress(CurateError):  # what went wrong first is what the user should hear of
                write_database(Corpus(path))
            raise
        write_database(Corpus(path))
