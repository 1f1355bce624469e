"""How examples are selected: the recipe, the published recipes, and the budget."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from curate.errors import CurateError

Published = Literal["interleaving", "interleaving+", "interleaving++"]
Refusals = Literal["drop", "keep", "only"]
Metric = Literal["relative", "difference", "per_byte"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How examples are selected. The defaults are Interleaving++ (arXiv 2508.06249).

    `name` is a published mix: `interleaving` draws at random with `seed`, `interleaving+` takes the
    largest gaps, `interleaving++` the largest gaps without refusals.

    Give one budget: `top` examples; `fraction`, a share of the narrow dataset's rows (0.05 is one
    example after every 20 narrow rows, 4.76 % of the mix); or `tokens`, the most answer tokens in
    total, by the aligned model's tokenizer.

    `where` is a SQL condition over the columns of `gaps` and `examples`. `refusals` (`drop`, `keep`
    or `only`) says how refusals are treated; the default is that of the published mix. They are
    recognized by `refusal_rule` (`paper`, `extended` or a file) or by a source's own label column,
    `refusal_field`. `max_similar` caps the rows in a group of near-duplicates, `per_group` those
    with the same value of a column, of `source` or of `prompt`. `balance` and `length_bins` split
    the budget evenly over a column's values and over quantiles of answer length. `decontaminate`
    lists files of evaluation prompts.

    A selection from a raced corpus (docs/race.md) is refused if its estimated recall is below
    `min_recall`.

    `columns` (by role) and `layouts` (a file) say how to read the narrow dataset `into`, as in
    `curate.score`.
    """

    name: Published = "interleaving++"
    top: int | None = None
    fraction: float | None = None
    tokens: int | None = None
    into: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    layouts: str | None = None
    metric: Metric = "relative"
    epsilon: float = 1.0
    hold_out: tuple[str, ...] = ()
    where: str | None = None
    seed: int = 0
    refusals: Refusals | None = None
    refusal_rule: str = "paper"
    refusal_field: str | None = None
    max_similar: int | None = None
    per_group: Mapping[str, int] = field(default_factory=dict)
    balance: str | None = None
    length_bins: int | None = None
    decontaminate: tuple[str, ...] = ()
    min_recall: float = 0.95

    def __post_init__(self) -> None:
        if self.refusals is None:
            published: Refusals = "drop" if self.name == "interleaving++" else "keep"
            object.__setattr__(self, "refusals", published)

    @property
    def is_random(self) -> bool:
        """Whether rows are drawn at random rather than by their gaps."""
        return self.name == "interleaving"

    @property
    def gap(self) -> dict[str, object]:
        """The arguments of the gap, by their names in SQL."""
        hold_out = list(self.hold_out)
        return {"epsilon": self.epsilon, "hold_out": hold_out, "metric": self.metric}

    @property
    def reads_refusals(self) -> bool:
        """Whether refusals are found in texts and labels, not by the corpus's own column."""
        return self.refusal_rule != "paper" or self.refusal_field is not None


def budget(recipe: Recipe, narrow_rows: int | None) -> int:
    """A recipe's budget: examples, or answer tokens if it has `tokens`.

    Raises:
        CurateError: there is not exactly one budget, or an option is out of range.
    """
    _check(recipe)
    given = [each for each in (recipe.top, recipe.fraction, recipe.tokens) if each is not None]
    if len(given) != 1:
        raise CurateError(
            "no or several budgets: give one of --top N, --tokens N, and --fraction F --into NARROW"
        )
    if recipe.fraction is None:
        return int(given[0])
    if not 0 < recipe.fraction <= 1:
        raise CurateError(f"--fraction {recipe.fraction}: give a share in (0, 1], like 0.05 or 5%")
    if narrow_rows is None:
        raise CurateError("--fraction needs a narrow dataset: add --into NARROW")
    # Half up, not Python's half to even: 0.05 of 30 and of 50 are 2 and 3.
    return max(1, int(recipe.fraction * narrow_rows + 0.5))


def check_choice(option: str, value: object, known: Collection[str]) -> None:
    """Reject an unknown value of an option.

    Raises:
        CurateError: the value is not one of `known`.
    """
    if value not in known:
        raise CurateError(f"{option} {value}: choose one of {', '.join(known)}")


def share(text: str) -> float:
    """Read a share of the narrow dataset: 0.05 or 5%.

    Raises:
        CurateError: the text is not a number.
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise CurateError(f"--fraction {text}: give a share, like 0.05 or 5%") from None


def quota(text: str) -> tuple[str, int]:
    """Read COLUMN=N.

    Raises:
        CurateError: the text has another form.
    """
    column, _, number = text.rpartition("=")
    if not column or not re.fullmatch(r"[0-9]{1,18}", number):
        raise CurateError(f"--per-group {text}: give COLUMN=N, like source=100")
    return column, int(number)


def _check(recipe: Recipe) -> None:
    if recipe.into is None and (recipe.columns or recipe.layouts):
        raise CurateError("--column and --layouts describe a narrow dataset: add --into NARROW")
    check_choice("--recipe", recipe.name, get_args(Published))
    check_choice("--refusals", recipe.refusals, get_args(Refusals))
    check_choice("--metric", recipe.metric, get_args(Metric))
    if not 0 <= recipe.min_recall <= 1:
        raise CurateError(f"--min-recall {recipe.min_recall:g}: give a share from 0 to 1")
    numbers = {
        "--top": recipe.top,
        "--tokens": recipe.tokens,
        "--max-similar": recipe.max_similar,
        "--length-bins": recipe.length_bins,
        **{f"--per-group {column}": most for column, most in recipe.per_group.items()},
    }
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise CurateError(f"{option} {number}: give at least 1")
