"""Removes models and sources from a corpus; the next call finishes an interrupted one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.corpus import integrity
from curate.corpus.corpus import UNSKIPPED, Corpus, write_database
from curate.errors import CurateError
from curate.storage import manifest, parts
from curate.storage.locking import locked
from curate.storage.manifest import Manifest, Race

_ID = pa.binary(16)


def counts(corpus: Corpus, models: Sequence[str], sources: Sequence[str]) -> tuple[int, int]:
    """How many examples and scores would be removed.

    Raises:
        CurateError: a name is not in the corpus, or is that of the aligned model.
    """
    known = corpus.manifest.models
    for name in models:
        if name not in known:
            raise CurateError(f"{corpus.path}: no model {name}. Choose from: {', '.join(known)}")
        if known[name].role == "aligned":
            raise CurateError(
                f"{corpus.path}: {name} is its aligned model, which every gap needs. Score "
                "into a new corpus instead."
            )
    query = "select source from examples union select source from skipped where source is not null"
    read = sorted(source for (source,) in corpus.sql(query).fetchall())
    for source in sources:
        if source not in read:
            raise CurateError(f"{corpus.path}: no source {source}. Choose from: {', '.join(read)}")
    query = """
        select (select count(*) from gone), count(*)
        from score_parts
        where list_contains($models, model) or key in (select key from gone)
    """
    gone = "gone as (select key from example_parts where list_contains($sources, source))"
    values = {"models": list(models), "sources": list(sources)}
    (found,) = corpus.sql(f"with {gone} {query}", values).fetchall()
    return found


def drop(path: Path, models: Sequence[str], sources: Sequence[str]) -> None:
    """Remove models and sources from a corpus, with their examples and scores.

    An example in several sources is removed with the one that was read first. After a kill, the
    corpus can't be opened until another call, with or without names, has finished the work.

    Raises:
        CurateError: see `counts`; or a file of the corpus is damaged.
    """
    with locked(path):
        _finish(path, manifest.load(path, to_finish=True))
        corpus = Corpus(path)
        counts(corpus, models, sources)
        if damaged := integrity.check(corpus):
            raise CurateError(
                f"{path}: {damaged[0].path} {damaged[0].reason}; see `curate status --verify`"
            )
        record = corpus.manifest
        if record.race:
            left = record.race.audit - _audited(corpus, record.race, sources)
            record.race = replace(record.race, audit=left)
        record.dropping = {"models": list(models), "sources": list(sources)}
        manifest.save(record, path)
        _finish(path, record)
        write_database(Corpus(path))


def _audited(corpus: Corpus, race: Race, sources: Sequence[str]) -> int:
    """How many examples of a race's random sample are of these sources."""
    query = f"""
        select count(*) from (select source from example_parts {UNSKIPPED} limit $audit)
        where list_contains($sources, source)
    """
    values = {"audit": race.audit, "seed": str(race.seed), "sources": list(sources)}
    (found,) = corpus.sql(query, values).fetchall()
    return int(found[0])


def _finish(path: Path, record: Manifest) -> None:
    """Remove what the manifest lists as `dropping`; can be repeated. The caller holds the lock.

    Examples are removed last: until then, they say which scores to remove.
    """
    if not record.dropping:
        return
    models, sources = record.dropping["models"], record.dropping["sources"]
    ids = []
    for part in parts.list_parts(path / "examples"):
        rows = pq.read_table(part, columns=["example_id", "source"])
        ids += rows.filter(_is_in(rows["source"], sources))["example_id"].cast(_ID).chunks
    gone = pa.chunked_array(ids, _ID).combine_chunks()
    for folder in sorted((path / "scores").glob("*")):
        for part in reversed(parts.list_parts(folder)):
            if folder.name in models:
                parts.remove_part(part)
            else:
                _remove(part, lambda rows: pc.is_in(rows["example_id"].cast(_ID), gone))
    texts = [each.hex() for each in gone.to_pylist()]
    listed = {"model": models, "source": sources, "example_id": texts}
    for part in parts.list_parts(path / "skipped"):
        _remove(part, lambda rows: reduce(pc.or_, (_is_in(rows[n], v) for n, v in listed.items())))
    for part in parts.list_parts(path / "examples"):
        _remove(part, lambda rows: _is_in(rows["source"], sources))
    for name in models:
        record.models.pop(name, None)
        record.runs.pop(name, None)
        folder = path / "scores" / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    # A condition over the gaps of a dropped model can't be evaluated again.
    record.only = {n: o for n, o in record.only.items() if not {n, *o.over} & {*models}}
    if not record.misaligned:
        record.race = None
    record.sources = [each for each in record.sources if each.get("source") not in sources]
    record.dropping = {}
    manifest.save(record, path)


def _remove(part: Path, which: Callable[[pa.Table], pa.ChunkedArray]) -> None:
    """Remove rows from a part; an emptied part keeps its number."""
    rows = pq.read_table(part)
    goes = which(rows)
    if pc.any(goes).as_py():
        parts.rewrite_part(part, rows.filter(pc.invert(goes)))


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(column, pa.array(list(values), pa.string()))
