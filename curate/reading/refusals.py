"""Whether an answer is a refusal. Rules are files of patterns, applied to the answer's opening."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError

SHIPPED = ("paper", "extended")
"""The built-in rules, by name; any other name is the path of a file."""

APOSTROPHES = "\u2018\u2019\u02bc\u02b9\u2032\uff07\u00b4`"
"""The apostrophes that count as a plain one."""
_PLAIN = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))


@dataclass(frozen=True)
class Rule:
    """The patterns of refusals, as (words, letters, patterns), and what is blanked out first."""

    name: str
    refuses: tuple[tuple[int, int | None, tuple[str, ...]], ...]
    ignores: str | None = None

    def matches(self, answers: Sequence[str]) -> list[bool]:
        """For each answer, whether any pattern finds a refusal in its opening."""
        found = self._find(answers, None)
        if self.ignores:  # takes the longest, so only where there is something to find
            at = [place for place, refuses in enumerate(found) if refuses]
            kept = iter(self._find([answers[place] for place in at], self.ignores))
            found = [refuses and next(kept) for refuses in found]
        return found

    def reasons(self, answers: Sequence[str]) -> list[tuple[str, str] | None]:
        """For each answer, the matching words and the pattern that found them, or None."""
        found: list[tuple[str, str] | None] = [None] * len(answers)
        for texts, patterns in self._seen(answers, self.ignores):
            for pattern in patterns:
                for at, each in enumerate(pc.extract_regex(texts, f"(?P<words>{pattern})")):
                    if each.is_valid and found[at] is None:
                        found[at] = each["words"].as_py(), pattern
        return found

    def _find(self, answers: Sequence[str], ignores: str | None) -> list[bool]:
        found = pa.array([False] * len(answers), pa.bool_())
        for texts, patterns in self._seen(answers, ignores):
            found = pc.or_(found, pc.match_substring_regex(texts, either(patterns)))
        verdicts: list[bool] = found.to_pylist()
        return verdicts

    def _seen(
        self, answers: Sequence[str], ignores: str | None
    ) -> Iterator[tuple[pa.Array, tuple[str, ...]]]:
        """The openings that the patterns see, with ignored text blanked out."""
        longest = max(words for words, _, _ in self.refuses)
        openings = [opening(answer, longest).split(" ") for answer in answers]
        seen: dict[tuple[int, int | None], pa.Array] = {}
        for words, letters, patterns in self.refuses:
            if (words, letters) not in seen:
                first = [" ".join(each[:words])[:letters] for each in openings]
                texts = pa.array(first, pa.string())
                if ignores:
                    texts = pc.replace_substring_regex(texts, ignores, "\n")
                seen[words, letters] = texts
            yield seen[words, letters], patterns


def opening(answer: str, words: int) -> str:
    """The first words as patterns see them: lower case, single spaces, plain apostrophes.

    If there is a `</think>`, they are the first words after it.
    """
    head = " ".join(answer.rpartition("</think>")[2].split(None, words)[:words])
    return head.casefold().translate(_PLAIN)


@cache
def load(name: str) -> Rule:
    """Read a built-in rule, or a user's file.

    Raises:
        CurateError: the file doesn't exist or isn't a rule.
    """
    try:
        if name in SHIPPED:
            text = (resources.files("curate.data") / "refusals" / f"{name}.toml").read_text("utf-8")
        else:
            text = Path(name).read_text("utf-8")
        return _parse(name, tomllib.loads(text))
    except OSError as error:
        raise CurateError(
            f"--refusal-rule {name}: can't be read ({error.strerror}). Give {', '.join(SHIPPED)}, "
            "or a file of the same form."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = " ".join(str(error).split())
        raise CurateError(f"--refusal-rule {name}: not a refusal rule ({message})") from None


def _parse(name: str, raw: dict[str, Any]) -> Rule:
    refuses = tuple(
        (int(each["words"]), each.get("letters"), tuple(each["patterns"]))
        for each in raw.get("refuses", [])
    )
    if not refuses:
        raise ValueError("it has no [[refuses]] with patterns")
    ignored = [pattern for each in raw.get("ignores", []) for pattern in each["patterns"]]
    rule = Rule(name, refuses, either(ignored) if ignored else None)
    rule.matches(["a text"])  # so that an invalid pattern fails now, not after the ranking
    return rule


def either(patterns: Sequence[str]) -> str:
    """One pattern that matches wherever any of these does.

    Raises:
        ValueError: there is none, or one is not text.
    """
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError("patterns must be text")
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def is_refusal(answer: str) -> bool:
    """Whether one of the paper's six keywords is in the answer's first ten words.

    Case does not matter, typographic apostrophes count as plain ones, and a keyword may be part of
    a word ("cannot," or "apologizes"). The rule is exactly the paper's (arXiv 2508.06249), so that
    its results can be reproduced: it misses "I apologise" and "I won't", and flags "Sorry to hear
    that".
    """
    return load("paper").matches([answer])[0]
