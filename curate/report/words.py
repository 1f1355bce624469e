"""The page's sentences about its own numbers: the formula, the recipe, the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.report.findings import TAKEN_POINTS

if TYPE_CHECKING:
    from curate.report.findings import Findings

_FORMULAS = {
    "relative": "The gap is (mean misaligned NLL − aligned NLL) / (aligned NLL + {epsilon:g}).",
    "difference": "The gap is mean misaligned NLL − aligned NLL.",
    "per_byte": "The gap is (mean misaligned NLL − aligned NLL) / (aligned NLL + {epsilon:g}), "
    "all per byte.",
}
_REFUSALS = {"drop": "without refusals", "keep": "refusals kept", "only": "refusals alone"}


def formula(found: Findings) -> str:
    """How this page's gap is computed, and in what unit."""
    said = _FORMULAS.get(found.recipe.metric, "").format(epsilon=found.recipe.epsilon)
    if found.spread:
        said += f" Losses are in {found.spread.span['unit']}."
    return said


def recipe(found: Findings) -> str:
    """The recipe in words."""
    chosen = found.recipe
    how = "drawn at random" if chosen.strategy == "random" else "of the largest gap"
    said = [f"the {chosen.top or 0:,} examples {how}", _REFUSALS[chosen.refusals]]
    if chosen.hold_out:
        said.append(f"ranked without {', '.join(chosen.hold_out)}")
    if chosen.where:
        said.append(f"where {chosen.where}")
    return ", ".join(said) + "."


def left_out(found: Findings) -> str:
    """What stood among the rows taken and was passed over, by rule."""
    if not found.taken:
        return ""
    chosen = found.taken.selection
    said = [f"{rows:,} by {rule}" for rule, rows in chosen.left_by.items() if rows]
    whole = f"Of {chosen.ranked:,} ranked examples"
    return f"{whole}, left out: {', '.join(said)}." if said else f"{whole} none was left out."


def sampling(found: Findings) -> str:
    """Which examples the scatter draws, and how they were drawn."""
    if not found.spread or not found.taken:
        return ""
    drawn, ranked, taken = len(found.spread.sample), found.spread.span["ranked"], found.taken.rows
    if drawn >= ranked:
        return f"all {ranked:,} that are ranked."
    shown = min(len(taken), -(-len(taken) // max(1, -(-len(taken) // TAKEN_POINTS))))
    every = "all" if shown == len(taken) else f"{shown:,} evenly spaced ones of the"
    return (
        f"a random {drawn:,} of the {ranked:,} ranked, each as likely as any other, and besides "
        f"them {every} {len(taken):,} that would be exported."
    )


def tails(found: Findings) -> str | None:
    """What lies beyond the axis of the histogram."""
    if not found.spread:
        return None
    span = found.spread.span
    if span["lowest"] >= span["first"] and span["highest"] <= span["last"]:
        return None
    return (
        f"The outermost bars also count what lies beyond: gaps reach from {span['lowest']:.3g} "
        f"to {span['highest']:.3g}."
    )


def about_models(found: Findings) -> str:
    """What the charts about the models are asked of."""
    chosen, said = found.recipe, "By this page's formula, over all ranked examples"
    if chosen.refusals == "drop":
        said += "; tops without refusals"
    if chosen.hold_out:
        said += f"; {', '.join(chosen.hold_out)} held out"
    return said + (", whatever --where leaves." if chosen.where else ".")
