"""Sentences: what the numbers say in brief, and what to try next, each with its command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.report.findings import Findings, Ranking

SMALL_SHIFT = 0.2  # a top that changes by less than this does not hang on one model
DOMINANT = 2.0  # a source with twice its usual share fills the top
LENGTH_SHIFT = 0.5  # of the inner half of all gaps


@dataclass(frozen=True)
class Advice:
    """One thing to try: what, why, and the command that does it, if one does."""

    what: str
    why: str
    command: str | None = None


def brief(found: Findings) -> Iterator[str]:
    """A few sentences with the page's main figures, in the page's order."""
    missing = sum(max(row["missing"], 0) for row in found.models)
    yield (
        f"{found.status['ranked']:,} of {found.status['examples']:,} examples are ranked; "
        f"{f'{missing:,} scores are' if missing else 'no score is'} missing."
    )
    if not (ranking := found.ranking):
        return
    span, totals = ranking.span, ranking.totals
    shift = span["misaligned"] - span["aligned"]
    yield (
        f"The median gap is {span['middle']:.3f}; on average the misaligned models' loss is "
        f"{abs(shift):.3f} {span['unit']} {'above' if shift >= 0 else 'below'} the aligned model's."
    )
    depth = min(ranking.depth, key=lambda row: abs(row["depth"] - totals["rows"]))
    yield (
        f"Refusals are {span['refusals'] / span['ranked']:.1%} of what is ranked and "
        f"{depth['share']:.1%} of the first {depth['depth']:,}."
    )
    pairs = [row for row in ranking.agreement if row["other"] != "(ensemble)"]
    pairs = [row for row in pairs if row["rank_correlation"] is not None]
    if pairs:
        least = min(pairs, key=lambda row: row["rank_correlation"])
        yield (
            f"{least['model']} and {least['other']} agree least: "
            f"ρ = {least['rank_correlation']:.2f}."
        )
    yield (
        f"The export takes {totals['rows']:,} examples, {totals['tokens']:,} answer tokens"
        + (f"; {totals['refusals']:,} are refusals." if totals["refusals"] else ".")
    )


def advice(found: Findings, coloured: bool) -> list[Advice]:
    """What to try next, most pressing first; never empty."""
    given = [*_about_scores(found)]
    if found.ranking:
        given += [*_about_the_top(found, found.ranking), *_about_the_models(found, found.ranking)]
        if not coloured:
            given.append(
                Advice(
                    "See the gap token by token",
                    "Token log-probs are not stored. A corpus scored with them shows which words "
                    "of an answer make the gap.",
                    f"curate score SOURCE -c {_corpus(found)}-tokens --keep-tokens ...",
                )
            )
        if not found.ranking.shown.manifest:
            given.append(
                Advice(
                    "Export what this page shows",
                    "To mix it with your narrow data, write --fraction 0.05 --into NARROW instead "
                    "of --top. Then give the manifest to `curate report --export`.",
                    export_command(found),
                )
            )
    return given


def export_command(found: Findings) -> str:
    """The `curate export` that writes the rows of this page."""
    command = f"curate export -c {_corpus(found)}"
    manifest = found.ranking and found.ranking.shown.manifest
    if manifest:
        return f"{command} --from-manifest {shlex.quote(str(manifest))} -o again"
    return f"{command} --top {found.recipe.top} -o safe.jsonl"


def _corpus(found: Findings) -> str:
    return shlex.quote(str(found.path))


def _about_scores(found: Findings) -> Iterator[Advice]:
    behind = [row["model"] for row in found.models if row["missing"] > 0]
    if not any(row["role"] == "misaligned" for row in found.models):
        yield Advice(
            "Score a misaligned model",
            "Without one there is no gap. Any LoRA adapter fine-tuned on harmful narrow data will "
            "do; existing scores are kept.",
            f"curate score SOURCE -c {_corpus(found)} --aligned MODEL --misaligned ADAPTER",
        )
    elif behind:
        yield Advice(
            "Finish scoring",
            f"{', '.join(behind)}: scores are missing, and an example ranks only when every "
            "model has scored it. The same `curate score` as before computes just these.",
            f"curate status -c {_corpus(found)}",
        )
    skipped = sum(row["skipped"] for row in found.status["skipped"])
    if skipped > 0.01 * max(found.status["examples"], 1):
        yield Advice(
            "Look at what was skipped",
            f"{skipped:,} rows or scores were skipped, most of them because: "
            f"{found.status['skipped'][0]['reason']}",
            f"curate sql skips -c {_corpus(found)}",
        )


def _about_the_top(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    shown, totals = ranking.shown, ranking.totals
    top = totals["rows"]
    if shown.inside_noise:
        yield Advice(
            "Don't trust the last places",
            f"The gaps on both sides of the cut differ by less than the {shown.noise:g} nats that "
            "batching and rounding move; a rerun may swap them.",
        )
    if totals["refusals"] > 0.2 * top and found.recipe.refusals == "keep":
        yield Advice(
            "Exclude refusals",
            f"{totals['refusals']:,} of {top:,} are refusals. They rank high because misaligned "
            "models stopped refusing, and a model trained on many of them answers incoherently.",
        )
    heavy = [row for row in ranking.composition if row["share"] > 0.5]
    if heavy and len(ranking.composition) > 1 and heavy[0]["share"] > DOMINANT * heavy[0]["usual"]:
        yield Advice(
            f"See whether {heavy[0]['source']} should fill the export",
            f"It gives {heavy[0]['share']:.0%} of the rows taken and {heavy[0]['usual']:.0%} of "
            "all ranked. A mix of one kind of text defends less broadly: export with --balance "
            "source to share the budget out.",
            f"curate sql by_source -c {_corpus(found)} -p top={top}",
        )
    same = max(totals["same_answer"], totals["same_prompt"])
    if same:
        what, option = "prompt", "per-group prompt=1"
        if totals["same_answer"] == same:
            what, option = "answer", "max-similar 1"
        yield Advice(
            "Look at the repeats",
            f"{same:,} of the rows taken repeat the {what} of another; export with --{option} to "
            "keep one.",
            f"curate sql duplicates -c {_corpus(found)} -p of={what} -p top={top}",
        )
    if _length_shift(ranking) > LENGTH_SHIFT:
        yield Advice(
            "Check for a length bias",
            "The median gap moves with the answer's length by more than half of the gaps' own "
            "spread. Export with --length-bins 4 to share the budget out over lengths.",
            f"curate sql length_bias -c {_corpus(found)}",
        )


def _about_the_models(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    moved = ranking.leave_one_out
    if len(moved) > 1 and 1 - moved[0]["overlap"] > SMALL_SHIFT:
        yield Advice(
            f"Ask what {moved[0]['left_out']} adds",
            f"Without it {moved[0]['new']:,} of the top {moved[0]['top']:,} would be other "
            "examples. To keep an evaluation on its domain honest, export with --hold-out "
            f"{moved[0]['left_out']}.",
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
            f"curate sql disagreement -c {_corpus(found)} -p top=20",
        )


def _length_shift(ranking: Ranking) -> float:
    """How far the median gap moves over the common lengths, in inner halves of all gaps."""
    total = sum(row["n"] for row in ranking.by_length)
    common = [row for row in ranking.by_length if row["n"] >= 0.05 * total]
    middles = [row["p50"] for row in common]
    inner = sum(row["n"] * (row["p75"] - row["p25"]) for row in common) / total
    return (max(middles) - min(middles)) / inner if middles and inner > 0 else 0.0


_FORMULAS = {
    "relative": "The gap is (mean misaligned NLL − aligned NLL) / (aligned NLL + {epsilon:g}).",
    "difference": "The gap is mean misaligned NLL − aligned NLL.",
    "per_byte": "The gap is (mean misaligned NLL − aligned NLL) / (aligned NLL + {epsilon:g}), "
    "all per byte.",
}


def formula(found: Findings, ranking: Ranking) -> str:
    """How this page's gap is computed, and in what unit."""
    text = _FORMULAS[found.recipe.metric].format(epsilon=found.recipe.epsilon)
    return f"{text} Losses are in {ranking.span['unit']}."


def recipe(found: Findings, ranking: Ranking) -> str:
    """The recipe in words."""
    chosen, shown = found.recipe, ranking.shown
    said = [f"{len(shown.ids):,} examples {'at random' if chosen.is_random else 'by their gap'}"]
    refusals = {"drop": "without refusals", "keep": "refusals kept", "only": "refusals alone"}
    said.append(refusals[str(chosen.refusals)])
    if chosen.hold_out:
        said.append(f"ranked without {', '.join(chosen.hold_out)}")
    if chosen.where:
        said.append(f"where {chosen.where}")
    start = f"The export of {shown.manifest}" if shown.manifest else "The best tenth"
    return f"{start}: {', '.join(said)}."


def left_out(ranking: Ranking) -> str:
    """What stood among the rows taken and was excluded, by rule."""
    said = [f"{rows:,} by {rule}" for rule, rows in ranking.shown.left_out.items() if rows]
    return f"Of {ranking.shown.ranked:,} ranked examples, excluded: {', '.join(said) or 'none'}."


def sampling(ranking: Ranking) -> str:
    """Which examples the scatter draws, and how they were drawn."""
    drawn, ranked = len(ranking.sample), ranking.span["ranked"]
    if drawn >= ranked:
        return f"all {ranked:,} that are ranked."
    return (
        f"a random {drawn:,} of the {ranked:,} ranked, each as likely as any other, and besides "
        f"them {len(ranking.taken):,} of the {ranking.totals['rows']:,} that the export takes."
    )


def tails(ranking: Ranking) -> str | None:
    """What lies beyond the axis of the histogram."""
    span = ranking.span
    if span["lowest"] >= span["first"] and span["highest"] <= span["last"]:
        return None
    return (
        f"The outermost bars also count what lies beyond: gaps reach from {span['lowest']:.3g} "
        f"to {span['highest']:.3g}."
    )


def about_models(found: Findings) -> str:
    """What the charts about the models compare."""
    said = "Gaps by this page's formula, over all ranked examples"
    if found.recipe.refusals == "drop":
        said += "; tops without refusals"
    if found.recipe.hold_out:
        said += f"; {', '.join(found.recipe.hold_out)} held out"
    return said + "."
