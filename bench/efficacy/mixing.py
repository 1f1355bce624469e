"""What an arm exports for a domain and a seed: the recipe, and the folder that TRL trains on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import curate
from bench.efficacy.plan import DOMAINS, RANDOM, Arm, Run
from curate.corpus.corpus import Corpus
from curate.export.target import Target
from curate.selection.recipe import Recipe


def export(corpus: Corpus, run: Run, prepared: Path, folder: Path) -> dict[str, Any]:
    """Write the run's mix for TRL; gives back its manifest.

    Where nothing is added, narrow and safe rows stand in files of their own, of which only the
    narrow one is trained on.
    """
    into = prepared / "narrow" / f"{run.domain}-{run.seed}.jsonl"
    recipe = Recipe(
        **{
            "name": run.arm.recipe or RANDOM,
            "fraction": run.arm.fraction or 0.05,
            "into": str(into),
            "hold_out": held_out(run.domain, run.arm),
            "where": _where(corpus, run, into),
            "seed": run.seed,
            "decontaminate": (str(prepared / "decontaminate.jsonl"),),
            **run.arm.changes,
        },
    )
    target = Target(placement="even" if run.arm.recipe else "separate", trainer="trl")
    return curate.export(corpus, folder, recipe, target)


def held_out(domain: str, arm: Arm) -> tuple[str, ...]:
    """The misaligned models that don't rank: the domain's own, unless the arm names who does."""
    kept: Sequence[str] = [name for name in DOMAINS if name != domain]
    if arm.ensemble is not None:
        kept = arm.ensemble[domain]
    return tuple(name for name in DOMAINS if name not in kept)


def half(seed: int) -> str:
    """SQL for the half of the pool that a seed draws from: another one for every seed."""
    return f"md5('half {seed}:' || example_id) < '8'"


def _where(corpus: Corpus, run: Run, into: Path) -> str:
    conditions = [half(run.seed)] + ([run.arm.among[run.domain]] if run.arm.among else [])
    where = " and ".join(f"({each})" for each in conditions)
    if not run.arm.bottom:
        return where
    wanted = round(run.arm.fraction * sum(1 for _ in into.open("rb")))
    ranked = corpus.gaps(hold_out=held_out(run.domain, run.arm))
    answering = ranked.filter(f"{where} and not is_refusal").project("gap, example_id")
    (edge, _) = answering.order("gap, example_id").limit(1, wanted - 1).fetchall()[0]
    return f"{where} and gap <= {edge!r}"
