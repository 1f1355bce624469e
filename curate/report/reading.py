"""The first rows of the selection, made ready to be read in full."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.tokens_of import tokens_of_examples

if TYPE_CHECKING:
    from curate.corpus import Corpus
    from curate.report.findings import Taken
    from curate.report.lens import Row

ROWS = 50
LONGEST = 20_000  # characters of one message; a page must open on a phone
MESSAGES = 100  # of one conversation
MOST_TOKENS = 1_500  # coloured tokens of one answer
SHADES = ((0.05, 0), (0.25, 1), (0.75, 2), (2.0, 3), (math.inf, 4))  # nats: up to, shade


@dataclass(frozen=True)
class Token:
    """A piece of the answer, its gap in nats, and the class of its colour."""

    text: str
    gap: float
    shade: str


@dataclass(frozen=True)
class Reading:
    """One example in full: its numbers, its messages, and its answer's tokens where kept."""

    row: Row
    messages: list[tuple[str, str]]
    tokens: list[Token] | None
    rest: str


def readings(corpus: Corpus, taken: Taken, hold_out: Sequence[str] = ()) -> list[Reading]:
    """The first rows that the recipe takes, texts of great length cut in the middle."""
    tokens_of = tokens_of_examples(corpus, [row["id"] for row in taken.rows[:ROWS]], hold_out)
    conversations = taken.selection.rows.slice(0, ROWS)["messages"].to_pylist()
    found = []
    for row, conversation in zip(taken.rows, conversations, strict=False):
        messages = [(turn["role"], _cut(turn["content"] or "")) for turn in _ends(conversation)]
        tokens = tokens_of.get(row["id"])
        rest = ""
        if tokens is not None and len(tokens) > MOST_TOKENS:
            rest = _cut("".join(text for text, _ in tokens[MOST_TOKENS:]))
        coloured = None if tokens is None else [_token(*each) for each in tokens[:MOST_TOKENS]]
        found.append(Reading(row, messages, coloured, rest))
    return found


def _token(text: str, gap: float) -> Token:
    shade = next(number for limit, number in SHADES if abs(gap) <= limit)
    return Token(text, gap, f"{'p' if gap > 0 else 'm'}{shade}" if shade else "")


def _ends(conversation: Sequence[dict[str, str]]) -> Sequence[dict[str, str]]:
    """The first and the last messages, and between them how many are left out."""
    if len(conversation) <= MESSAGES:
        return conversation
    half = MESSAGES // 2
    left_out = len(conversation) - 2 * half
    told = {"role": "…", "content": f"[… {left_out:,} messages left out …]"}
    return [*conversation[:half], told, *conversation[-half:]]


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out:,} characters left out …]\n{text[-half:]}"
