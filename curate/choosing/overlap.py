"""Which examples share words with evaluation prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.reading.sources import resolve, rows

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
