"""The page's sentences: a summary of the numbers, and what to try next, each with its command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.report.findings import Findings, Ranking

SMALL_SHIFT = 0.2  # a top that changes by less than this does not depend on one model
DOMINANT = 2.0  # a source with twice its usual share dominates the top
LENGTH_SHIFT = 0.5  # as a share of the gaps' interquartile range


@dataclass(frozen=True)
class Advice:
    """One thing to try: what, why and, if there is one, the command."""

    what: str
    why: str
    command: str | None = None


def brief(found: Findings) -> Iterator[str]:
    """The page's main figures in a few sentences, in the page's order."""
    missing = sum(row["missing"] for row in found.models)
    yield (
        f"{found.status['ranked']:,} of {found.status['examples']:,} examples are ranked; "
        f"scores missing: {missing:,}."
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
        f"The median gap is {span['middle']:.3f}. The misaligned models' mean NLL is "
        f"{abs(shift):.3f} {span['unit']} {'above' if shift >= 0 else 'below'} the aligned model's."
    )
    depth = min(ranking.tables["depth"], key=lambda row: abs(row["depth"] - totals["rows"]))
    yield (
        f"Refusals make up {span['refusals'] / span['ranked']:.1%} of the ranked examples and "
        f"{depth['share']:.1%} of the top {depth['depth']:,}."
    )
    pairs = [row for row in ranking.tables["agreement"] if row["other"] != "(ensemble)"]
    pairs = [row for row in pairs if row["rank_correlation"] is not None]
    if pairs:
        least = min(pairs, key=lambda row: row["rank_correlation"])
        yield (
            f"Of the misaligned models, {least['model']} and {least['other']} agree"
            f"{' least' if len(pairs) > 1 else ''}: Spearman's ρ = {least['rank_correlation']:.2f}."
        )
    yield (
        f"{'The export' if ranking.shown.manifest else 'The best tenth'} has "
        f"{_count(totals['rows'], 'row')} with {_count(totals['tokens'], 'answer token')}; "
        f"refusals: {totals['refusals']:,}."
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
        ending = Path(manifest.stem.removesuffix(".manifest")).suffix  # none of a folder
        return f"{command} --from-manifest {shlex.quote(str(manifest))} -o again{ending}"
    return f"{command} --top {found.recipe.top} -o safe.jsonl"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _corpus(found: Findings) -> str:
    return shlex.quote(str(found.path))


def _about_scores(found: Findings) -> Iterator[Advice]:
    behind = [row["model"] for row in found.models if row["missing"]]
    if not any(row["role"] == "misaligned" for row in found.models):
        yield Advice(
            "Score a misaligned model",
            "The gap needs at least one: a LoRA adapter of your aligned model, fine-tuned on "
            "harmful narrow data. Existing scores are kept.",
            f"curate score -c {_corpus(found)} --misaligned NAME=ADAPTER",
        )
    elif behind:
        yield Advice(
            "Finish scoring",
            f"Scores by {', '.join(behind)} are missing, and an example is ranked only once every "
            "model has scored it. Run the same `curate score` again to compute them.",
            f"curate status -c {_corpus(found)}",
        )


def _about_the_top(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    totals, sources = ranking.totals, ranking.tables["composition"]
    top = totals["rows"]
    depth = f" -p top={top}" if ranking.shown.manifest else ""  # a tenth is the queries' own
    if totals["refusals"] > 0.2 * top and found.recipe.refusals == "keep":
        yield Advice(
            "Exclude refusals",
            f"{totals['refusals']:,} of the {top:,} rows are refusals. They rank high because "
            "misaligned models no longer refuse, and training on many makes a model incoherent.",
        )
    heavy = max(sources, key=lambda row: row["share"])
    if heavy["share"] > 0.5 and heavy["share"] > DOMINANT * heavy["usual"]:
        yield Advice(
            f"Check whether {heavy['source']} should dominate the export",
            f"It makes up {heavy['share']:.0%} of the exported rows and {heavy['usual']:.0%} of "
            "the ranked examples. A mix of one kind of text protects less broadly: export with "
            "--balance source to split the budget evenly.",
            f"curate sql by_source -c {_corpus(found)}{depth}",
        )
    same, what, option = max(
        (totals["same_answer"], "answer", "max-similar 1"),
        (totals["same_prompt"], "prompt", "per-group prompt=1"),
        key=lambda each: each[0],  # in a tie, the answer
    )
    of = "" if what == "answer" else f" -p of={what}"
    if same:
        yield Advice(
            "Look at the repeats",
            f"{same:,} of the exported rows repeat another row's {what}. Export with --{option} "
            "to keep one of each.",
            f"curate sql duplicates -c {_corpus(found)}{of}{depth}",
        )
    if _length_shift(ranking) > LENGTH_SHIFT:
        yield Advice(
            "Check for a length bias",
            "Between short and long answers, the median gap moves by more than half of the gaps' "
            "interquartile range. Export with --length-bins 4 to split the budget over lengths.",
            f"curate sql length_bias -c {_corpus(found)}{depth}",
        )


def _about_the_models(found: Findings, ranking: Ranking) -> Iterator[Advice]:
    moved = ranking.tables["leave_one_out"]
    if len(moved) > 1 and 1 - moved[0]["overlap"] > SMALL_SHIFT:
        yield Advice(
            f"Check what {moved[0]['left_out']} contributes",
            f"Without it, {moved[0]['new']:,} of the top {moved[0]['top']:,} would be different "
            "examples. If you evaluate on its domain, export with --hold-out "
            f"{moved[0]['left_out']}.",
        )
    elif found.members == 1 and not found.recipe.hold_out:
        yield Advice(
            "Add a second misaligned model",
            "With only one, the ranking can't separate misalignment from whatever else that "
            "fine-tune finds hard, and no model can be held out for evaluation.",
        )
    if len(moved) > 1:
        yield Advice(
            "Read where the models disagree",
            "Examples that one misaligned model finds hard and another finds easy show what each "
            "has learned.",
            f"curate sql disagreement -c {_corpus(found)}",
        )


def _length_shift(ranking: Ranking) -> float:
    """How far the median gap moves over the common lengths, in interquartile ranges."""
    lengths = ranking.tables["gap_by_length"]
    common = [row for row in lengths if row["n"] >= 0.05 * ranking.span["ranked"]]
    middles = [row["p50"] for row in common]
    inner = sum(row["n"] * (row["p75"] - row["p25"]) for row in common) / ranking.span["ranked"]
    return (max(middles) - min(middles)) / inner if inner > 0 else 0.0


def left_out(ranking: Ranking) -> str:
    """How many of the examples considered were excluded, by rule."""
    counts = [f"{rows:,} by {rule}" for rule, rows in ranking.shown.left_out.items() if rows]
    return f"Excluded from {ranking.shown.ranked:,} ranked examples: {', '.join(counts) or 'none'}."


def recipe(found: Findings, ranking: Ranking) -> str:
    """The recipe in words."""
    chosen, shown = found.recipe, ranking.shown
    how = "drawn at random" if chosen.is_random else "with the largest gaps"
    parts = [f"{_count(len(shown.ids), 'example')} {how}"]
    refusals = {"drop": "without refusals", "keep": "refusals kept", "only": "refusals only"}
    parts.append(refusals[str(chosen.refusals)])
    if chosen.hold_out:
        parts.append(f"ranked without {', '.join(chosen.hold_out)}")
    if chosen.where:
        parts.append(f"where {chosen.where}")
    start = f"From {shown.manifest}" if shown.manifest else "The top tenth of the ranking"
    return f"{start}: {', '.join(parts)}."
