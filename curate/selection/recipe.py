"""How a safe set is chosen: the recipe, the published ones by name, and how much it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from curate.errors import CurateError

PUBLISHED: dict[str, dict[str, Any]] = {
    "interleaving": {"strategy": "random", "refusals": "keep"},
    "interleaving+": {"strategy": "gap", "refusals": "keep"},
    "interleaving++": {"strategy": "gap", "refusals": "drop"},
}
"""The mixes of Kaczér et al. (arXiv 2508.06249): a random draw, the largest gaps, and the largest
gaps without refusals."""

CHOICES = {
    "refusals": ("drop", "keep", "only"),
    "strategy": ("gap", "random"),
    "metric": ("relative", "difference", "per_byte"),
    "length_shares": ("even", "proportional"),
}

LEAST, MOST = -(2**63), 2**64 - 1
"""The whole numbers that a manifest can hold."""


@dataclass(frozen=True)
class Recipe:
    """How a safe set is chosen. The defaults are Interleaving++ (arXiv 2508.06249).

    One budget is given: `top` examples; `fraction`, a share of the narrow set's rows (0.05 is
    one safe row after every 20 narrow ones, 4.76 % of the mix); or `tokens`, answer tokens by the
    aligned model's tokeniser, that the answers together do not exceed.

    Who is taken, best first: `where` is SQL over the columns of `gaps` and of `examples`;
    `refusals` are those of `refusal_rule` (`paper`, `extended` or a file), or of the source's own
    label column `refusal_field`; of those dropped `refusal_share` is kept after all. Caps count
    rows taken: `max_similar` of near-copies, `per_prompt` of one prompt, `per_group` of each value
    of a column. `balance` and `length_bins` split the budget over a column's values and over
    quantiles of answer length, `even` or `proportional` to what is there. `decontaminate` names
    files of evaluation prompts. `strategy` `random` draws with `seed`.
    """

    top: int | None = None
    fraction: float | None = None
    into: str | None = None
    refusals: Literal["drop", "keep", "only"] = "drop"
    strategy: Literal["gap", "random"] = "gap"
    metric: str = "relative"
    epsilon: float = 1.0
    hold_out: tuple[str, ...] = ()
    where: str | None = None
    seed: int = 0
    tokens: int | None = None
    refusal_rule: str = "paper"
    refusal_field: str | None = None
    refusal_share: float = 0.0
    max_similar: int | None = None
    per_prompt: int | None = None
    per_group: Mapping[str, int] = field(default_factory=dict)
    balance: str | None = None
    length_bins: int | None = None
    length_shares: Literal["even", "proportional"] = "even"
    decontaminate: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str, **changes: Any) -> Recipe:
        """A published mix by name, with changes.

        Raises:
            CurateError: no mix has that name.
        """
        if name not in PUBLISHED:
            raise CurateError(f"no recipe is called {name}; there are {', '.join(PUBLISHED)}")
        return cls(**(PUBLISHED[name] | changes))


def budget(recipe: Recipe, narrow_rows: int | None) -> int:
    """How much a recipe asks for: examples, or answer tokens where it has `tokens`.

    Raises:
        CurateError: no budget or two, or any number of the recipe out of its range.
    """
    check(recipe)
    given = [each for each in (recipe.top, recipe.fraction, recipe.tokens) if each is not None]
    if len(given) != 1:
        raise CurateError(
            "how many examples? give --top N, or --fraction F --into NARROW, or --tokens N, and "
            "one of them"
        )
    for option, number in (("--top", recipe.top), ("--tokens", recipe.tokens)):
        if number is not None:
            if number < 1:
                raise CurateError(f"{option} {number}: give at least 1")
            return number
    assert recipe.fraction is not None
    if not 0 < recipe.fraction <= 1:
        raise CurateError(f"--fraction {recipe.fraction}: give a share in (0, 1], like 0.05")
    if narrow_rows is None:
        raise CurateError("--fraction is a share of a narrow set: name it with --into NARROW")
    # Half up, not Python's half to even: 0.05 of 30 and of 50 are 2 and 3.
    return max(1, int(recipe.fraction * narrow_rows + 0.5))


def check(recipe: Recipe) -> None:
    """Refuse a recipe with a number out of its range, or with options that contradict.

    Raises:
        CurateError: it names the option.
    """
    for name, known in CHOICES.items():
        if getattr(recipe, name) not in known:
            option = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
            raise CurateError(f"{option}: choose {', '.join(known)}")
    counts = {
        "--max-similar": recipe.max_similar,
        "--per-prompt": recipe.per_prompt,
        "--length-bins": recipe.length_bins,
        **{f"--per-group {column}": most for column, most in recipe.per_group.items()},
    }
    for option, number in counts.items():
        if number is not None and number < 1:
            raise CurateError(f"{option} {number}: give at least 1")
    numbers = {"--top": recipe.top, "--tokens": recipe.tokens, "--seed": recipe.seed, **counts}
    for option, number in numbers.items():
        if number is not None and not LEAST <= number <= MOST:
            raise CurateError(f"{option} {number}: give a number of at most 64 bits")
    if not 0 <= recipe.refusal_share <= 1:
        raise CurateError(f"--refusal-share {recipe.refusal_share}: give a share in [0, 1]")
    if recipe.refusal_share and recipe.refusals != "drop":
        raise CurateError(
            f"--refusal-share keeps some of the refusals that are dropped: it goes with --refusals "
            f"drop, not {recipe.refusals}"
        )
    if recipe.length_shares == "proportional" and recipe.length_bins is None:
        raise CurateError("--length-shares says how --length-bins K splits the budget: give both")


def quota(text: str) -> tuple[str, int]:
    """Read COLUMN=N.

    Raises:
        CurateError: it isn't of that form.
    """
    column, equals, number = text.rpartition("=")
    if not equals or not column or not re.fullmatch(r"[0-9]{1,18}", number):
        raise CurateError(f"--per-group {text}: give COLUMN=N, like source=100")
    return column, int(number)
