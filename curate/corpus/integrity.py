"""Whether the files of a corpus are still what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.storage import parts
from curate.storage.schema import EXAMPLES, KEY, SCORES, SKIPPED
from curate.system.sql import readable_errors


@dataclass(frozen=True)
class Damage:
    """A part that is missing or not what was written; `path` is relative to the corpus."""

    path: str
    reason: str


def check(corpus: Corpus) -> list[Damage]:
    """Read every part of a corpus whole, and name those that can't be relied on.

    A part's name ends with the digest of its bytes. Parts are numbered without gaps, so one that
    is missing from the middle is found too. A missing last one of scores is work that is not done;
    one of examples is found if a model has scored what it held.
    """
    root = corpus.path
    scores = sorted((root / "scores").glob("*"))
    folders = {
        root / "examples": EXAMPLES,
        root / "skipped": SKIPPED,
        **dict.fromkeys(scores, SCORES),
    }
    found = [damage for folder in folders for damage in _damages(root, folder, folders[folder])]
    return found or list(_across_parts(corpus))


def _across_parts(corpus: Corpus) -> Iterator[Damage]:
    """What only the rows tell, where each part is as it was written."""
    twice = "select count(*) from (select key from {} group by all having count(*) > 1)"
    for where, query, reason in (
        ("examples", twice.format("example_parts"), "hold {:,} rows twice: a part was copied"),
        (
            "scores",
            twice.replace("key", "key, model").format("score_parts"),
            "hold {:,} rows twice: a part was copied",
        ),
        (
            "examples",
            "select count(distinct key) from score_parts anti join example_parts using (key)",
            "lack {:,} examples that have scores",
        ),
    ):
        try:
            with readable_errors():
                (count,) = corpus.sql(query).fetchall()[0]
        except CurateError as error:
            yield Damage(where, str(error))
        else:
            if count:
                yield Damage(where, reason.format(count))


def _damages(root: Path, folder: Path, schema: pa.Schema) -> Iterator[Damage]:
    found = parts.list_parts(folder)
    numbers = [parts.number_of(part) for part in found]
    for first, last in _missing(numbers):
        more = f", and all up to number {last:,}" if last > first else ""
        where = folder.relative_to(root) / f"part-{first:06d}-*.parquet"
        yield Damage(str(where), f"is missing{more}")
    counts = Counter(numbers)
    for part, number in zip(found, numbers, strict=True):
        reason = _reason(part, schema)
        # A skip counts once wherever it stands, and a killed rewriting leaves two parts of them.
        if counts[number] > 1 and not reason and schema is not SKIPPED:
            reason = "has the number of another part: its rows may count twice"
        if reason:
            yield Damage(str(part.relative_to(root)), reason)


def _missing(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each gap."""
    expected = 0
    for number in sorted({number for number in numbers if number >= 0}):
        if number > expected:
            yield expected, number - 1
        expected = number + 1


def _reason(part: Path, schema: pa.Schema) -> str | None:
    """Why a part can't be relied on; None where it can."""
    try:
        if part.stem.rpartition("-")[2] != parts.digest_of(part.read_bytes()):
            return "its bytes are not those that were written"
        found = pq.read_schema(part)
    except OSError as error:
        return f"can't be read ({error.strerror or type(error).__name__})"
    except (pa.ArrowException, ValueError):
        return "is not a Parquet file"
    for field in schema:
        wanted = KEY.type if field.name == KEY.name and schema is not SKIPPED else field.type
        at = found.get_field_index(field.name)
        if at < 0 or found.field(at).type != wanted:
            return f"has no column {field.name} of type {wanted}"
    return None
