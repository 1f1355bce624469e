"""Near-copies: MinHash and LSH (rensa) find candidates, their shingles decide."""

from __future__ import annotations

from collections.abc import Sequence

from curate.overlap import words

SIMILAR = 0.7
"""Two examples are near-copies if they share this part of their shingles (Jaccard)."""
SHINGLE = 3
"""Words in a shingle, over prompt and answer."""
PERMUTATIONS, BANDS, SEED = 128, 32, 1
"""With 32 bands of 4 a pair at the threshold is a candidate with probability 0.9998."""


class NearCopies:
    """Groups rows around the first of them: a row joins the first earlier head it is near to."""

    def __init__(self) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._hash = RMinHash
        self._index = RMinHashLSH(SIMILAR, PERMUTATIONS, BANDS)
        self._heads: list[tuple[str, str]] = []
        self._sizes: list[int] = []

    def sign(self, texts: Sequence[str]) -> list[tuple[str, object]]:
        """Texts with their signatures, which `find` and `add` take."""
        sets = [sorted(shingles(text)) for text in texts]
        signatures = self._hash.from_token_sets(sets, PERMUTATIONS, SEED)
        return list(zip(texts, signatures, strict=True))

    def find(self, signed: tuple[str, object]) -> int | None:
        """The number of the first head that a text is near to."""
        text, signature = signed
        mine: frozenset[str] | None = None
        for head in sorted(self._index.query(signature)):
            mine = mine if mine is not None else shingles(text)
            theirs = shingles(self._heads[head][1])
            if len(mine & theirs) >= SIMILAR * len(mine | theirs):
                return int(head)
        return None

    def head(self, number: int) -> str:
        """The example_id of a head."""
        return self._heads[number][0]

    def size(self, number: int) -> int:
        """How many rows were added around a head, itself included."""
        return self._sizes[number]

    def add(self, example_id: str, signed: tuple[str, object], near: int | None) -> None:
        """Take a row: into the group of the head `near`, or as a head of its own."""
        if near is not None:
            self._sizes[near] += 1
            return
        self._index.insert(len(self._heads), signed[1])
        self._heads.append((example_id, signed[0]))
        self._sizes.append(1)


def shingles(text: str) -> frozenset[str]:
    """Runs of `SHINGLE` words; the whole text where it is shorter."""
    found = words(text)
    return frozenset(
        " ".join(found[start : start + SHINGLE])
        for start in range(max(1, len(found) - SHINGLE + 1))
    )
