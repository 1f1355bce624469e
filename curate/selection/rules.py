"""The rules that leave rows out of a selection, each with the reason it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.reading import refusals
from curate.selection.candidates import Row
from curate.selection.duplicates import NearCopies, Overlap, Signed
from curate.selection.recipe import Recipe

_YES = frozenset(("refusal", "refuse", "refused", "yes", "true", "1", "full_refusal"))
_NO = frozenset(("compliance", "comply", "complied", "no", "false", "0", "not_refusal"))


class Sieve:
    """One rule. `check` gives the reason to leave a row out, `take` hears of a row taken."""

    name = ""

    def prepare(self, rows: Sequence[Row]) -> None:
        """Look at rows that will be checked soon, all at once."""

    def check(self, row: Row) -> str | None:
        """The reason to leave this row out, given what was taken so far; None lets it pass."""
        raise NotImplementedError

    def take(self, row: Row) -> None:
        """Note that a row which passed every rule is taken."""


class Refusals(Sieve):
    """Refusals by the source's label or a rule; a share of those dropped passes, best first."""

    name = "refusals"

    def __init__(self, recipe: Recipe) -> None:
        self._wanted = recipe.refusals
        self._share, self._field = recipe.refusal_share, recipe.refusal_field
        paper = recipe.refusal_rule == "paper"
        self._rule = None if paper else refusals.load(recipe.refusal_rule)
        self._refuses: dict[str, bool] = {}
        self._spared: dict[str, bool] = {}
        self.reads_text = not paper or self._field is not None or self._share > 0

    def prepare(self, rows: Sequence[Row]) -> None:
        """Apply the rule to all answers at once."""
        if self._rule is None:
            self._refuses = {row.example_id: row.is_refusal for row in rows}
        else:
            verdicts = self._rule.matches([row.answer for row in rows])
            ids = (row.example_id for row in rows)
            self._refuses = dict(zip(ids, verdicts, strict=True))
        if self._field is not None:
            labels = {row.example_id: _label(row, self._field) for row in rows}
            known = {key: label for key, label in labels.items() if label is not None}
            self._refuses |= known

    def passing(self, flags: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which rows the paper's verdicts let pass, where no text is needed to tell."""
        return flags if self._wanted == "only" else pc.invert(flags)

    def check(self, row: Row) -> str | None:
        """Drop refusals but for their share, or what is none where only they are wanted."""
        refuses = self._refuses[row.example_id]
        if self._wanted == "only":
            return None if refuses else "no refusal"
        if not refuses or self._spare(row.example_id):
            return None
        return "a refusal"

    def _spare(self, example_id: str) -> bool:
        if not self._share:
            return False
        if example_id not in self._spared:
            met = len(self._spared)
            # The nearest to the share at any time: of S = 0.25 the second, sixth, tenth ... pass.
            self._spared[example_id] = int((met + 1) * self._share + 0.5) > int(
                met * self._share + 0.5
            )
        return self._spared[example_id]


class Narrow(Sieve):
    """Rows that stand in the narrow set already."""

    name = "narrow"

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids

    def check(self, row: Row) -> str | None:
        """Compare ids, which are hashes of the conversations."""
        return "in the narrow set" if row.example_id in self._ids else None


class Decontaminate(Sieve):
    """Rows that share words with evaluation prompts."""

    name = "decontaminate"

    def __init__(self, paths: Sequence[str]) -> None:
        self._overlap = Overlap(paths)

    def check(self, row: Row) -> str | None:
        """Look for a run of words in any turn."""
        return self._overlap.find([turn["content"] for turn in row.messages])


class Cap(Sieve):
    """At most so many rows taken of one prompt, or of one value of a column."""

    def __init__(self, name: str, most: int, key: Callable[[Row], object]) -> None:
        self.name, self._most, self._key = name, most, key
        self._taken: Counter[object] = Counter()

    def check(self, row: Row) -> str | None:
        """Refuse what would be one too many."""
        full = self._taken[self._key(row)] >= self._most
        return f"{self._most} taken already" if full else None

    def take(self, row: Row) -> None:
        """Count it."""
        self._taken[self._key(row)] += 1


class Similar(Sieve):
    """At most so many rows taken of each group of near-copies; without a number it only counts."""

    name = "max_similar"

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._groups = NearCopies()
        self._signed: dict[str, Signed] = {}
        self.copies = 0

    def prepare(self, rows: Sequence[Row]) -> None:
        """Sign all texts at once; rows without them were left out before."""
        known = [row for row in rows if row.messages]
        texts = ["\n".join(turn["content"] for turn in row.messages) for row in known]
        ids = (row.example_id for row in known)
        self._signed = dict(zip(ids, self._groups.sign(texts), strict=True))

    def check(self, row: Row) -> str | None:
        """Name the better row that this one is a near-copy of, where the group is full."""
        if self._most is None:
            return None
        near = self._groups.find(self._signed[row.example_id])
        if near is None or self._groups.size(near) < self._most:
            return None
        return f"near-copy of {self._groups.head(near)}"

    def take(self, row: Row) -> None:
        """Put it into its group."""
        signed = self._signed[row.example_id]
        near = self._groups.find(signed)
        self.copies += near is not None
        self._groups.add(row.example_id, signed, near)


def build(recipe: Recipe, narrow_ids: Collection[str]) -> list[Sieve]:
    """The rules of a recipe, in the order in which a row meets them.

    Raises:
        CurateError: a rule's file can't be read.
    """
    sieves: list[Sieve] = []
    if recipe.refusals != "keep":
        sieves.append(Refusals(recipe))
    if narrow_ids:
        sieves.append(Narrow(narrow_ids))
    if recipe.decontaminate:
        sieves.append(Decontaminate(recipe.decontaminate))
    if recipe.per_prompt is not None:
        sieves.append(Cap("per_prompt", recipe.per_prompt, lambda row: row.prompt))
    for column, most in recipe.per_group.items():
        sieves.append(Cap(f"per_group {column}", most, _value_of(column)))
    sieves.append(Similar(recipe.max_similar))
    return sieves


def _value_of(column: str) -> Callable[[Row], object]:
    return lambda row: row.value(column)


def _label(row: Row, column: str) -> bool | None:
    """What the source's own label says; None where the row has none.

    Raises:
        CurateError: the label is neither a yes nor a no.
    """
    text = row.value(column).strip().casefold()
    if text in _YES or text in _NO:
        return text in _YES
    if not text:
        return None
    raise CurateError(
        f"--refusal-field {column}: {row.source} says {text[:40]!r}, which is neither of "
        f"{', '.join(sorted(_YES))} nor of {', '.join(sorted(_NO))}"
    )
