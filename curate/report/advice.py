"""Sentences: what the numbers say in brief, and what to try next, each with its command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.report.findings import TAKEN_POINTS

if TYPE_CHECKING:
    from curate.report.findings import Findings
    from curate.report.lens import Row

SMALL_SHIFT = 0.2  # a top that changes by less than this does not hang on one model
DOMINANT = 2.0  # a source with twice its usual share fills the top
LENGTH_SHIFT = 0.5  # of the inner half of all gaps


@dataclass(frozen=True)
class Advice:
    """One thing to try: what, why, and the command that does it, if one does."""

    what: str
    why: str
    command: str | None = None


def brief(found: Findings) -> list[str]:
    """A few sentences with the page's main figures, in the page's order."""
    status, said = found.status, []
    missing = sum(max(row["missing"], 0) for row in found.models)
    ranked, examples = status["ranked"], status["examples"]
    said.append(
        f"{ranked:,} of {examples:,} examples are ranked"
        + (f"; {missing:,} scores are still missing." if missing else "; no score is missing.")
    )
    if not (found.spread and found.ensemble and found.taken):
        return said
    span, top = found.spread.span, len(found.taken.rows)
    shift = span["misaligned"] - span["aligned"]
    said.append(
        f"The median gap is {span['middle']:.3f}; on average the misaligned models' loss is "
        f"{abs(shift):.3f} {span['unit']} {'above' if shift >= 0 else 'below'} the aligned model's."
    )
    share = span["refusals"] / span["ranked"]
    depth = min(found.spread.depth, key=lambda row: abs(row["depth"] - top))
    said.append(
        f"Refusals are {share:.1%} of what is ranked and {depth['share']:.1%} of the first "
        f"{depth['depth']:,}."
    )
    lowest = _least_agreeing(found)
    if lowest:
        said.append(
            f"{lowest['model']} and {lowest['other']} agree least: "
            f"ρ = {lowest['rank_correlation']:.2f}."
        )
    said.append(
        f"The recipe takes {top:,} examples, {found.taken.tokens:,} answer tokens"
        + (f", {found.taken.refusals:,} of them refusals." if found.taken.refusals else ".")
    )
    return said


def advice(found: Findings, coloured: bool) -> list[Advice]:
    """What to try next, most pressing first; never empty."""
    given = [*_about_scores(found)]
    if found.spread and found.taken and found.ensemble:
        given += [*_about_the_top(found), *_about_the_models(found)]
        if not coloured:
            given.append(_keep_tokens(found))
        given.append(
            Advice(
                "Export what this page shows",
                "The recipe of this report, as a file that a trainer reads; --fraction 0.05 --into "
                "NARROW instead of --top writes the mix with your narrow data.",
                export_command(found),
            )
        )
    return given


def export_command(found: Findings) -> str:
    """The `curate export` that takes this report's selection."""
    recipe = found.recipe
    options = ["curate", "export", "-c", str(found.path), "--top", str(recipe.top)]
    usual = type(recipe)()
    for name in ("refusals", "strategy", "metric", "epsilon", "where", "seed"):
        if getattr(recipe, name) != getattr(usual, name):
            options += [f"--{name}", str(getattr(recipe, name))]
    for name in recipe.hold_out:
        options += ["--hold-out", name]
    return shlex.join([*options, "-o", "safe.jsonl"])


def _about_scores(found: Findings) -> Iterator[Advice]:
    corpus = shlex.quote(str(found.path))
    behind = [row["model"] for row in found.models if row["missing"] > 0]
    if not any(row["role"] == "misaligned" for row in found.models):
        yield Advice(
            "Score a misaligned model",
            "Without one there is no gap. Any LoRA fine-tuned on harmful narrow data will do; "
            "what is scored already is not scored again.",
            f"curate score SOURCE -c {corpus} --aligned MODEL --misaligned ADAPTER",
        )
    elif behind:
        yield Advice(
            "Finish scoring",
            f"{', '.join(behind)}: scores are missing, and an example ranks only when every "
            "model has scored it. The same `curate score` as before computes just these.",
            f"curate status -c {corpus}",
        )
    skipped = sum(row["skipped"] for row in found.status["skipped"])
    if skipped and skipped > 0.01 * max(found.status["examples"], 1):
        yield Advice(
            "Look at what was skipped",
            f"{skipped:,} rows or scores were skipped, most for one reason: "
            f"{found.status['skipped'][0]['reason']}",
            f"curate sql skips -c {corpus}",
        )


def _about_the_top(found: Findings) -> Iterator[Advice]:
    assert found.spread and found.taken
    corpus, taken, top = shlex.quote(str(found.path)), found.taken, len(found.taken.rows)
    if taken.selection.inside_noise:
        yield Advice(
            "Don't trust the last places",
            f"The gaps on both sides of the cut differ by less than the {taken.selection.noise:g} "
            "nats that batching and rounding move; a rerun may swap them.",
        )
    if found.recipe.refusals == "keep" and taken.refusals > 0.2 * top:
        yield Advice(
            "Leave refusals out",
            f"{taken.refusals:,} of {top:,} are refusals. They rank high because misaligned models "
            "stopped refusing, and a model trained on many of them answers incoherently.",
            export_command(found).replace(" --refusals keep", ""),
        )
    heavy = [row for row in taken.by_source if row["usual"] and row["share"] > 0.5]
    heavy = [row for row in heavy if row["share"] > DOMINANT * row["usual"]]
    if heavy and len(taken.by_source) > 1:
        yield Advice(
            f"See whether {heavy[0]['source']} should fill the export",
            f"It gives {heavy[0]['share']:.0%} of the rows taken and {heavy[0]['usual']:.0%} of "
            "all ranked. A mix of one kind of text defends less broadly: export with --balance "
            "source to share the budget out.",
            f"curate sql by_source -c {corpus} -p top={top}",
        )
    same = max(taken.same_answer, taken.same_prompt)
    if same:
        what = "answer" if taken.same_answer >= taken.same_prompt else "prompt"
        yield Advice(
            "Look at the repeats",
            f"{same:,} of the rows taken repeat the {what} of a row before them; export with "
            f"--{'max-similar' if what == 'answer' else 'per-prompt'} 1 to keep one.",
            f"curate sql duplicates -c {corpus} -p of={what} -p top={top}",
        )
    if _length_shift(found) > LENGTH_SHIFT:
        yield Advice(
            "Check for a bias of length",
            "The median gap moves with the answer's length by more than half of the gaps' own "
            "spread. Export with --length-bins 4 to share the budget out over lengths.",
            f"curate sql length_bias -c {corpus}",
        )


def _about_the_models(found: Findings) -> Iterator[Advice]:
    assert found.ensemble
    corpus = shlex.quote(str(found.path))
    moved = found.ensemble.leave_one_out
    if len(moved) > 1 and 1 - moved[0]["overlap"] > SMALL_SHIFT:
        yield Advice(
            f"Ask what {moved[0]['left_out']} adds",
            f"Without it {moved[0]['new']:,} of the top {moved[0]['top']:,} would be other "
            "examples. Hold it out too when you evaluate on its domain, to keep that honest.",
            f"{export_command(found)} --hold-out {shlex.quote(moved[0]['left_out'])}",
        )
    elif found.members == 1 and not found.recipe.hold_out:
        yield Advice(
            "Add a second misaligned model",
            "With one, the ranking can't tell what is misaligned from what that fine-tune "
            "happens to find hard, and nothing can be held out for evaluation.",
        )
    if len(moved) > 1:
        yield Advice(
            "Read where the ensemble splits",
            "Examples that one misaligned model finds hard and another easy show what each "
            "learned.",
            f"curate sql disagreement -c {corpus} -p top=20",
        )


def _keep_tokens(found: Findings) -> Advice:
    return Advice(
        "See the gap token by token",
        "Token log-probs are not kept. A corpus scored with them colours the answers above by "
        "which words make the gap.",
        f"curate score SOURCE -c {shlex.quote(str(found.path))}-tokens --keep-tokens ...",
    )


def _least_agreeing(found: Findings) -> Row | None:
    assert found.ensemble
    pairs = [row for row in found.ensemble.agreement if row["other"] != "(ensemble)"]
    known = [row for row in pairs if row["rank_correlation"] is not None]
    return min(known, key=lambda row: row["rank_correlation"]) if known else None


def _length_shift(found: Findings) -> float:
    """How far the median gap moves over the common lengths, in inner halves of all gaps."""
    assert found.spread
    total = sum(row["n"] for row in found.spread.by_length)
    common = [row for row in found.spread.by_length if row["n"] >= 0.05 * total]
    middles = [row["p50"] for row in common]
    inner = sum(row["n"] * (row["p75"] - row["p25"]) for row in common)
    inner /= max(sum(row["n"] for row in common), 1)
    return (max(middles) - min(middles)) / inner if middles and inner > 0 else 0.0


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
