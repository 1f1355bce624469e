"""The rules that exclude rows from a selection, with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from curate.errors import CurateError
from curate.reading import refusals
from curate.selection.candidates import Row, value_columns
from curate.selection.duplicates import EvaluationTexts, NearDuplicates, Signed
from curate.selection.recipe import Recipe

REFUSAL = "a refusal"
"""The reason for a row that the rule over the texts calls a refusal."""
_YES = frozenset(("refusal", "refuse", "refused", "yes", "true", "1", "full_refusal"))
_NO = frozenset(("compliance", "comply", "complied", "no", "false", "0", "not_refusal"))


class Rule:
    """One rule: `check` returns the reason to exclude a row; `take` notes a selected row."""

    name = ""

    def prepare(self, rows: Sequence[Row]) -> None:
        """Prepare for the rows that will be checked next, all at once."""

    def check(self, row: Row) -> str | None:
        """The reason to exclude this row, given those selected so far, or None."""
        raise NotImplementedError

    def take(self, row: Row) -> None:
        """Note that a row has passed every rule and is selected."""


class _Refusals(Rule):
    """Refusals by the source's own label or, without one, by a rule over the texts."""

    name = "refusals"

    def __init__(self, recipe: Recipe) -> None:
        self._wanted, self._column = recipe.refusals, recipe.refusal_field
        self._rule = refusals.load(recipe.refusal_rule)
        self._refuses: dict[str, str | None] = {}

    def prepare(self, rows: Sequence[Row]) -> None:
        verdicts = self._rule.matches([row.messages[-1]["content"] for row in rows])
        for row, verdict in zip(rows, verdicts, strict=True):
            label = self._label(row)
            by_label = f"a refusal by its {self._column}" if label else None
            by_rule = REFUSAL if verdict else None
            self._refuses[row.example_id] = by_rule if label is None else by_label

    def check(self, row: Row) -> str | None:
        refuses = self._refuses[row.example_id]
        if self._wanted == "only":
            return None if refuses else "no refusal"
        return refuses

    def _label(self, row: Row) -> bool | None:
        if self._column is None:
            return None
        text = row.values[-1].strip().casefold()  # the last column
        if text and text not in _YES | _NO:
            raise CurateError(
                f"--refusal-field {self._column}: {row.source} says {text[:40]!r}, which is "
                f"neither of {', '.join(sorted(_YES))} nor of {', '.join(sorted(_NO))}"
            )
        return text in _YES if text else None


class _Narrow(Rule):
    """Rows that are already in the narrow dataset, by their ids (hashes of the conversations)."""

    name = "narrow"

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids

    def check(self, row: Row) -> str | None:
        return "in the narrow dataset" if row.example_id in self._ids else None


class _Decontamination(Rule):
    """Rows of which any turn shares a run of words with evaluation prompts."""

    name = "decontaminate"

    def __init__(self, paths: Sequence[str]) -> None:
        self._texts = EvaluationTexts(paths)

    def check(self, row: Row) -> str | None:
        return self._texts.find([turn["content"] for turn in row.messages])


class _Cap(Rule):
    """At most N rows for each value of a column, which is at index `at` of `Row.values`."""

    def __init__(self, column: str, at: int, most: int) -> None:
        self.name, self._at, self._most = f"per_group {column}", at, most
        self._taken: Counter[str] = Counter()

    def check(self, row: Row) -> str | None:
        full = self._taken[row.values[self._at]] >= self._most
        return f"{self._most} already selected" if full else None

    def take(self, row: Row) -> None:
        self._taken[row.values[self._at]] += 1


class Dedup(Rule):
    """At most N rows of each group of near-duplicates; without a limit, it only counts."""

    name = "max_similar"

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._groups = NearDuplicates()
        self._signed: dict[str, Signed] = {}
        self.duplicates = 0

    def prepare(self, rows: Sequence[Row]) -> None:
        """Prepare all texts at once."""
        signed = self._groups.sign(
            ["\n".join(turn["content"] for turn in row.messages) for row in rows]
        )
        self._signed = {row.example_id: each for row, each in zip(rows, signed, strict=True)}

    def check(self, row: Row) -> str | None:
        """If the group is full, name the better row that this one nearly duplicates."""
        if self._most is None:
            return None
        group = self._groups.find(self._signed[row.example_id])
        if group is None or group.size < self._most:
            return None
        return f"near-duplicate of {group.example_id}"

    def take(self, row: Row) -> None:
        """Put it into its group."""
        self.duplicates += self._groups.add(row.example_id, self._signed[row.example_id])


def build(recipe: Recipe, narrow_ids: Collection[str]) -> list[Rule]:
    """The rules of a recipe, in the order in which they are applied; `Dedup` is the last.

    If only the paper's rule decides on refusals, `Candidates` excludes them earlier.

    Raises:
        CurateError: a rule's file can't be read.
    """
    rules: list[Rule] = []
    if recipe.refusals != "keep" and recipe.reads_refusals:
        rules.append(_Refusals(recipe))
    if narrow_ids:
        rules.append(_Narrow(narrow_ids))
    if recipe.decontaminate:
        rules.append(_Decontamination(recipe.decontaminate))
    places = {column: at for at, column in enumerate(value_columns(recipe))}
    rules += [_Cap(column, places[column], most) for column, most in recipe.per_group.items()]
    return [*rules, Dedup(recipe.max_similar)]
