"""Near-copies: MinHash and LSH (rensa) find candidates, their shingles decide."""

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
"""Two examples are near-copies if they share this part of their shingles (Jaccard)."""
SHINGLE = 3
"""Words in a shingle, over prompt and answer."""
PERMUTATIONS, BANDS, SEED = 128, 32, 1
"""With 32 bands of 4 a pair at the threshold is a candidate with probability 0.9998."""
LIKELY = 0.55
"""Candidates whose MinHashes agree less are no near-copies: 3.7 standard errors below SIMILAR."""
CLOSEST = 64
"""Candidates whose shingles are compared: texts of one template can all be candidates."""

LONGEST = 1 << 20
"""Characters of a text that are compared: its shingles take some 40 times their text in memory."""
AT_ONCE = 16 << 20
"""Characters of the texts whose shingles are in memory at once."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A text made ready: its MinHash, and the hashes of its shingles."""

    minhash: Any
    shingles: NDArray[np.uint64]


class NearCopies:
    """Groups rows around the first of them: a row joins the first earlier head it is near to.

    Only the `CLOSEST` heads whose MinHashes agree most with the row's are compared with it: one
    that is near but not among them is passed over.
    """

    def __init__(self) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._hash = RMinHash
        self._index = RMinHashLSH(SIMILAR, PERMUTATIONS, BANDS)
        self._heads: list[tuple[str, Signed]] = []
        self._sizes: list[int] = []

    def sign(self, texts: Sequence[str]) -> list[Signed]:
        """Make texts ready for `find` and `add`."""
        if len(texts) > 1 and sum(min(len(text), LONGEST) for text in texts) > AT_ONCE:
            half = len(texts) // 2
            return self.sign(texts[:half]) + self.sign(texts[half:])
        sets = [sorted(shingles(text[:LONGEST])) for text in texts]
        minhashes = self._hash.from_token_sets(sets, PERMUTATIONS, SEED)
        hashes = self._hash.hash_token_sets(sets)
        pairs = zip(minhashes, hashes, strict=True)
        return [Signed(minhash, np.array(each, np.uint64)) for minhash, each in pairs]

    def find(self, signed: Signed) -> int | None:
        """The number of the first head that a text is near to, among the likeliest."""
        alike = (
            (signed.minhash.jaccard(self._heads[head][1].minhash), -head)
            for head in self._index.query(signed.minhash)
        )
        closest = heapq.nlargest(CLOSEST, (each for each in alike if each[0] >= LIKELY))
        heads: list[int] = sorted(-each for _, each in closest)
        for head in heads:
            if _jaccard(signed.shingles, self._heads[head][1].shingles) >= SIMILAR:
                return head
        return None

    def head(self, number: int) -> str:
        """The example_id of a head."""
        return self._heads[number][0]

    def size(self, number: int) -> int:
        """How many rows were added around a head, itself included."""
        return self._sizes[number]

    def add(self, example_id: str, signed: Signed, near: int | None) -> None:
        """Take a row: into the group of the head `near`, or as a head of its own."""
        if near is not None:
            self._sizes[near] += 1
            return
        self._index.insert(len(self._heads), signed.minhash)
        self._heads.append((example_id, signed))
        self._sizes.append(1)


def shingles(text: str) -> frozenset[str]:
    """Runs of `SHINGLE` words; the whole text where it is shorter."""
    found = words(text)
    return frozenset(
        " ".join(found[start : start + SHINGLE])
        for start in range(max(1, len(found) - SHINGLE + 1))
    )


def _jaccard(one: NDArray[np.uint64], two: NDArray[np.uint64]) -> float:
    """The share of two sets that both have; each hash stands in a set once."""
    both = np.intersect1d(one, two, assume_unique=True).size
    return both / (one.size + two.size - both)


N = 8
"""Words in a row that two texts must share. Shorter evaluation texts must equal a whole turn."""

# A word, or one sign of a script that puts no space between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


class Overlap:
    """All runs of `N` words of evaluation files, and where each stands."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._grams: dict[str, str] = {}
        for path in paths:
            count = 0
            for place, text in _texts(path):
                found = words(text)
                for gram in _grams(found):
                    self._grams.setdefault(gram, place)
                count += bool(found)
            if not count:
                raise CurateError(f"--decontaminate {path}: there is no text in it")

    def find(self, turns: Sequence[str]) -> str | None:
        """Where a turn overlaps with an evaluation text, and the words; None if none does."""
        for turn in turns:
            for gram in _grams(words(turn)):
                if gram in self._grams:
                    return f"{self._grams[gram]}: {gram}"
        return None


def _grams(found: Sequence[str]) -> Iterator[str]:
    # A text shorter than N words is one gram, so that it meets only a turn that is equal to it.
    for start in range(max(1, len(found) - N + 1)) if found else ():
        yield " ".join(found[start : start + N])


def _texts(path: str) -> Iterator[tuple[str, str]]:
    """Every text of a file with its place: lines of a .txt, all text of any other row."""
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


def _leaves(row: Any) -> Iterator[str]:
    """All texts in a row, however deep, in their order."""
    left = [row]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left.extend(reversed(list(value.values())))
        elif isinstance(value, list | tuple):
            left.extend(reversed(value))
