"""Near-duplicates (MinHash and LSH by rensa), and overlap with evaluation prompts."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import CurateError
from curate.reading.sources import resolve, rows

SIMILAR = 0.7
"""Two examples are near-duplicates if they share this part of their shingles (Jaccard)."""
SHINGLE = 3
"""Words in a shingle, over prompt and answer."""
PERMUTATIONS, BANDS, SEED = 128, 32, 1
"""With 32 bands of 4, a pair at the threshold is a candidate with probability 0.9998."""
LIKELY = 0.55
"""Candidates whose MinHashes agree less, 3.7 standard errors below SIMILAR, are not compared."""
CLOSEST = 64
"""The most candidates to compare: texts from one template can all be candidates."""

CONTAMINATED = 8
"""Words in a row shared with an evaluation text. Shorter texts must equal a whole turn."""

# A word, or one character of a script without spaces between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


def runs(text: str, length: int) -> list[str]:
    """All runs of this many words, in lower case and without punctuation.

    A text of fewer words is one run; a text without words has none.
    """
    words = _WORD.findall(text.casefold())
    starts = range(max(1, len(words) - length + 1)) if words else ()
    return [" ".join(words[start : start + length]) for start in starts]


@dataclass(frozen=True, slots=True)
class Signed:
    """A prepared text: its MinHash and the hashes of its shingles."""

    minhash: Any
    shingles: NDArray[np.uint64]


@dataclass
class Group:
    """A group of near-duplicates: its best row, and the number of its rows so far."""

    example_id: str
    signed: Signed
    size: int = 1


class NearDuplicates:
    """Groups rows by their first row: each row joins the first group whose head is similar to it.

    A row is compared only with the `CLOSEST` heads whose MinHashes agree most with its own.
    """

    def __init__(self) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._hash = RMinHash
        self._index = RMinHashLSH(SIMILAR, PERMUTATIONS, BANDS)
        self._groups: list[Group] = []

    def sign(self, texts: Sequence[str]) -> list[Signed]:
        """Prepare texts for `find` and `add`, much faster together than one by one."""
        sets = [sorted(set(runs(text, SHINGLE)) or {""}) for text in texts]
        minhashes = self._hash.from_token_sets(sets, PERMUTATIONS, SEED)
        hashes = self._hash.hash_token_sets(sets)
        pairs = zip(minhashes, hashes, strict=True)
        return [Signed(minhash, np.array(each, np.uint64)) for minhash, each in pairs]

    def find(self, signed: Signed) -> Group | None:
        """The first group whose head is similar to a text."""
        candidates = self._index.query(signed.minhash)
        alike = (
            (signed.minhash.jaccard(self._groups[at].signed.minhash), -at) for at in candidates
        )
        closest = heapq.nlargest(CLOSEST, (each for each in alike if each[0] >= LIKELY))
        groups = (self._groups[at] for at in sorted(-at for _, at in closest))
        return next((g for g in groups if _jaccard(signed, g.signed) >= SIMILAR), None)

    def add(self, example_id: str, signed: Signed) -> bool:
        """Add a row to its group, or as the head of a new one; return whether it is a duplicate."""
        group = self.find(signed)
        if group is not None:
            group.size += 1
            return True
        self._index.insert(len(self._groups), signed.minhash)
        self._groups.append(Group(example_id, signed))
        return False


def _jaccard(one: Signed, two: Signed) -> float:
    both = np.intersect1d(one.shingles, two.shingles, assume_unique=True).size
    return both / (one.shingles.size + two.shingles.size - both)


class EvaluationTexts:
    """All runs of words in evaluation files, with their places.

    Raises:
        CurateError: a file can't be read, or holds no text.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._places: dict[str, str] = {}
        for path in paths:
            found = {run: place for place, text in _texts(path) for run in runs(text, CONTAMINATED)}
            if not found:
                raise CurateError(f"--decontaminate {path}: it has no text")
            self._places |= found

    def find(self, turns: Sequence[str]) -> str | None:
        """The place and the words that a turn shares with an evaluation text, or None."""
        found = (run for turn in turns for run in runs(turn, CONTAMINATED) if run in self._places)
        run = next(found, None)
        return None if run is None else f"{self._places[run]}: {run}"


def _texts(path: str) -> Iterator[tuple[str, str]]:
    """Every text of a file with its place: lines of a .txt, or all texts of each row."""
    if Path(path).suffix == ".txt":
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CurateError(f"--decontaminate {path}: can't be read ({error})") from None
        yield from ((f"{path}:{number}", line) for number, line in enumerate(lines, 1))
        return
    for source in resolve([path]):
        for number, row in rows(source):
            if isinstance(row, str):
                raise CurateError(f"{source}:{number}: {row}")
            yield from ((f"{source}:{number}", text) for text in _leaves(row))


def _leaves(value: Any) -> Iterator[str]:
    """All texts in a row, at any depth, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
