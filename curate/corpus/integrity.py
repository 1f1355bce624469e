"""Whether the files of a corpus are intact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.storage import parts
from curate.system.sql import readable_errors


@dataclass(frozen=True)
class Damage:
    """A part that is missing or damaged; `path` is relative to the corpus."""

    path: str
    reason: str


_TWICE = "select count(*) from (select {} from {} group by all having count(*) > 1)"
_COPIED = "have {:,} duplicate rows: a part was copied"
_LOST = "select count(distinct key) from score_parts anti join example_parts using (key)"
_ACROSS_PARTS = (
    ("examples", _TWICE.format("key", "example_parts"), _COPIED),
    ("scores", _TWICE.format("key, model", "score_parts"), _COPIED),
    ("examples", _LOST, "lack {:,} examples that have scores"),
)
"""Damage that only the rows show, if each part is intact."""


def check(corpus: Corpus) -> list[Damage]:
    """Read every part of a corpus in full, and list the damaged ones.

    A part's name ends with the digest of its bytes. Parts are numbered without gaps, so a missing
    one in the middle is detected too. If the last part of scores is missing, its scores count as
    not computed; a missing last part of examples is detected if a model has scored them.
    """
    root = corpus.path
    found = [damage for folder in parts.folders_of(root) for damage in _damages(root, folder)]
    if found:
        return found
    for where, query, reason in _ACROSS_PARTS:
        try:
            with readable_errors():
                (count,) = corpus.sql(query).fetchall()[0]
        except CurateError as error:
            found.append(Damage(where, str(error)))
        else:
            found += [Damage(where, reason.format(count))] if count else []
    return found


def _damages(root: Path, folder: Path) -> Iterator[Damage]:
    found = parts.list_parts(folder)
    for before, number in pairwise(sorted({-1, *map(parts.number_of, found)})):
        if number > before + 1:
            more = f", and all up to number {number - 1:,}" if number > before + 2 else ""
            where = folder.relative_to(root) / f"part-{before + 1:06d}-*.parquet"
            yield Damage(str(where), f"is missing{more}")
    for part in found:
        try:
            whole = part.stem.rpartition("-")[2] == parts.digest_of(part.read_bytes())
            reason = "" if whole else "its bytes have changed since it was written"
        except OSError as error:
            reason = f"can't be read ({error.strerror})"
        if reason:
            yield Damage(str(part.relative_to(root)), reason)
