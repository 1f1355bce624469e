"""Whether the files of a corpus are still what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.corpus.corpus import Corpus
from curate.corpus.views import misfit
from curate.errors import CurateError
from curate.storage import parts
from curate.storage.schema import EXAMPLES, SCORES, SKIPPED
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
    folders = [root / "examples", root / "skipped", *sorted((root / "scores").glob("*"))]
    found = [damage for each in folders for damage in _damages(root, each)]
    return found or list(_strays(corpus))


def _strays(corpus: Corpus) -> Iterator[Damage]:
    """What only the rows tell, where each part is as it was written."""
    readable = True
    for where, rows, names in (
        ("examples", "example_parts", "key"),
        ("scores", "token_parts", "key, model"),
    ):
        same = f"select {names} from {rows} group by all having count(*) > 1"
        try:
            if twice := _count(corpus, same):
                copied = "a part was copied under another number"
                yield Damage(where, f"hold {twice:,} rows twice: {copied}")
            _first(corpus, f"select count(columns(*)) from {rows}")
        except CurateError as error:
            readable = False
            yield Damage(where, str(error))
    lost = "select distinct key from score_parts anti join example_parts using (key)"
    if readable and (count := _count(corpus, lost)):
        yield Damage("examples", f"lack {count:,} examples that have scores")


def _count(corpus: Corpus, query: str) -> int:
    return int(_first(corpus, f"select count(*) from ({query})"))


@readable_errors()
def _first(corpus: Corpus, query: str) -> Any:
    return corpus.sql(query).fetchall()[0][0]


def _damages(root: Path, folder: Path) -> Iterator[Damage]:
    inside = {root / "examples": EXAMPLES, root / "skipped": SKIPPED}
    schema = inside.get(folder, SCORES)
    found = parts.list_parts(folder)
    numbers = [parts.number_of(part) for part in found]
    for first, last in _missing(numbers):
        where = folder.relative_to(root) / f"part-{first:06d}-*.parquet"
        more = f", and all up to number {last:,}" if last > first else ""
        yield Damage(str(where), f"is missing{more}")
    for other in sorted(set(folder.glob(parts.PARTS)) - set(found)):
        yield Damage(str(other.relative_to(root)), "is no file")
    for part in found:
        number = parts.number_of(part)
        reason = "is no part's name" if number < 0 else _reason(part) or misfit(part, schema)
        # A skip counts once wherever it stands, and a killed rewriting leaves two parts of them.
        if numbers.count(number) > 1 and not reason and schema is not SKIPPED:
            reason = "has the number of another part: its rows may count twice"
        if reason:
            yield Damage(str(part.relative_to(root)), reason)


def _missing(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each gap; a stranger's may be as wide as digits allow."""
    expected = 0
    for number in sorted({number for number in numbers if number >= 0}):
        if number > expected:
            yield expected, number - 1
        expected = number + 1


def _reason(part: Path) -> str | None:
    """Why a part can't be relied on; None where it can."""
    digest = part.stem.rpartition("-")[2]
    try:
        if len(digest) == 16:
            whole = digest == parts.digest_of(part)
            return None if whole else "its bytes are not those that were written"
        pq.read_table(part)  # written before names had digests
    except OSError as error:
        return f"can't be read ({error.strerror or type(error).__name__})"
    except (pa.ArrowException, ValueError):
        return "is no whole Parquet file"
    return None
