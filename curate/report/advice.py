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
    missing = sum(row["missing"] for row in found.models)
    yield (
        f"{found.status['ranked']:,} of {found.status['examples']:,} examples are ranked; "
        f"{f'{missing:,} scores are' if missing else 'no score is'} missing."
    )
    if race := found.status["race"]:
        yield (
            f"The corpus was raced to the top {race['depth']:,}, with a recall of "
            f"{race['found']['estimate']:.3f}: deeper, and in every figure of the whole pool, "
            "examples are missing that rank low."
        )
    if not (ranking := found.ranking):
        return
    span, totals = ranking.span, ranking.totals
    shift = span["misaligned"] - span["aligned"]
    yield (
        f"The median gap is {span['middle']:.3f}; on average the misaligned models' loss is "
        f"{abs(shift):.3f} {span['unit']} {'above' if shift >= 0 else 'below'} the aligned model's."
    )
    depth = min(ranking.tables["depth"], key=lambda row: abs(row["depth"] - totals["rows"]))
    yield (
        f"Refusals are {span['refusals'] / span['ranked']:.1%} of what is ranked and "
        f"{depth['share']:.1%} of the first {depth['depth']:,}."
    )
    pairs = [row for row in ranking.tables["agreement"] if row["other"] != "(ensemble)"]
    pairs = [row for row in pairs if row["rank_correlation"] is not None]
    if pairs:
        least = min(pairs, key=lambda row: row["rank_correlation"])
        yield (
            f"{least['model']} and {least['other']} agree"
            f"{' least' if len(pairs) > 1 else ''}: ρ = {least['rank_correlation']:.2f}."
        )
    yield (
        f"The export takes {totals['rows']:,} examples, {totals['tokens']:,} answer tokens"
        + (f"; {totals['refusals']:,} are refusals." if totals["refusals"] else ".")
    )


def advice(found: Findings) -> Iterator[Advice]:
    """What to try next, most pressing first."""
    yield from _about_scores(found)
    if ranking := found.ranking:
        yield from _about_the_top(found, ranking)
        yield from _about_the_models(found, ranking)


def export_command(found: Findings) -> str:
    """The `curate export` that writes the rows of this page."""
    command = f"curate export -c {_corpus(found)}"
    if found.ranking and (manifest := found.ranking.shown.manifest):
        return f"{command} --from-manifest {shlex.quote(str(manifest))} -o again"
    return f"{command} --top {found.recipe.top} -o safe.jsonl"


def _corpus(found: Findings) -> str:
    return shlex.quote(str(found.path))


def _about_scores(found: Findings) -> Iterator[Advice]:
    behind = [row["model"] for row in found.models if row["missing"]]
    if not any(row["role"] == "misaligned" for row in found.models):
        yield Advice(
            "Score a misaligned model",
            "Without one there is no gap. Any LoRA adapter fine-tuned on harmful narrow data will "
            "do; existing scores are kept.",
            f"curate score -c {_corpus(found)} --misaligned NAME=ADAPTER",
        )
    elif behind:
        yield Advice(
            "Finish scoring",
            f"{', '.join(behind)}: scores are missing, and an example ranks only when every "
            "model has scored it. The same `curate score` as before computes just these.",
            f"curate status -c {_corpus(found)}",
        )


def _about_the_top(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    totals, sources = ranking.totals, ranking.tables["composition"]
    top = totals["rows"]
    depth = f" -p top={top}" if ranking.shown.manifest else ""  # a tenth is the queries' own
    if totals["refusals"] > 0.2 * top and found.recipe.refusals == "keep":
        yield Advice(
            "Exclude refusals",
            f"{totals['refusals']:,} of {top:,} are refusals. They rank high because misaligned "
            "models stopped refusing, and a model trained on many of them answers incoherently.",
        )
    heavy = max(sources, key=lambda row: row["share"])
    if heavy["share"] > 0.5 and heavy["share"] > DOMINANT * heavy["usual"]:
        yield Advice(
            f"See whether {heavy['source']} should fill the export",
            f"It gives {heavy['share']:.0%} of the rows taken and {heavy['usual']:.0%} of "
            "all ranked. A mix of one kind of text defends less broadly: export with --balance "
            "source to share the budget out.",
            f"curate sql by_source -c {_corpus(found)}{depth}",
        )
    same, what, option = max(
        (totals["same_answer"], "answer", "max-similar 1"),
        (totals["same_prompt"], "prompt", "per-group prompt=1"),
        key=lambda each: each[0],  # the answer where they are as many
    )
    of = "" if what == "answer" else f" -p of={what}"
    if same:
        yield Advice(
            "Look at the repeats",
            f"{same:,} of the rows taken repeat the {what} of another; export with --{option} to "
            "keep one.",
            f"curate sql duplicates -c {_corpus(found)}{of}{depth}",
        )
    if _length_shift(ranking) > LENGTH_SHIFT:
        yield Advice(
            "Check for a length bias",
            "The median gap moves with the answer's length by more than half of the gaps' own "
            "spread. Export with --length-bins 4 to share the budget out over lengths.",
            f"curate sql length_bias -c {_corpus(found)}{depth}",
        )


def _about_the_models(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    moved = ranking.tables["leave_one_out"]
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
            f"curate sql disagreement -c {_corpus(found)}",
        )


def _length_shift(ranking: Ranking) -> float:
    """How far the median gap moves over the common lengths, in inner halves of all gaps."""
    lengths = ranking.tables["gap_by_length"]
    common = [row for row in lengths if row["n"] >= 0.05 * ranking.span["ranked"]]
    middles = [row["p50"] for row in common]
    inner = sum(row["n"] * (row["p75"] - row["p25"]) for row in common) / ranking.span["ranked"]
    return (max(middles) - min(middles)) / inner if inner > 0 else 0.0


def left_out(ranking: Ranking) -> str:
    """What stood among the rows taken and was excluded, by rule."""
    said = [f"{rows:,} by {rule}" for rule, rows in ranking.shown.left_out.items() if rows]
    return f"Of {ranking.shown.ranked:,} ranked examples, excluded: {', '.join(said) or 'none'}."


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
