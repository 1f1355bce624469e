"""How far the sources of a mix's safe rows explain (a): a regression over arms of equal size.

Which source a row comes from and what the ranking thinks of it go together, so one contrast can't
tell them apart; arms that draw from other sources, or from one alone, can, as far as there are any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.efficacy.intervals import Interval, Table, over_seeds
from bench.efficacy.plan import ARMS, DOMAINS
from bench.efficacy.seen import Seen

_SHARE = 0.05
_COVARIATES = (
    "a row of the safety set that is not a refusal",
    "a refusal",
    "100 more answer tokens, all rows together",
    "the ranking's top instead of a random sample (the bottom counts as -1)",
)


def table(table: Table, safe: Sequence[Seen]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a covariate's coefficient, in nats per token."""
    fits = _fits(table, safe)
    if len(fits) < 2:
        yield "Too few runs."
        return
    arms = ", ".join(_arms(table))
    yield (
        f"Least squares of (a) over the runs of {arms}, for each seed, with a constant for each "
        "domain; mean over seeds ± half the 95 % interval.\n"
    )
    yield "| what | (a) |"
    yield "| --- | --- |"
    for name, values in zip(_COVARIATES, np.transpose([fit for fit, _ in fits]), strict=True):
        yield f"| {name} | {_shown(over_seeds(values.tolist()))} |"
    yield f"| share of the variance within domains | {np.mean([r for _, r in fits]):.2f} |"


def _arms(table: Table) -> list[str]:
    """Arms that add the same number of rows in every domain."""
    there = {name for _, name, _ in table}
    return [
        arm.name
        for arm in ARMS
        if arm.fraction == _SHARE
        and "tokens" not in arm.changes
        and tuple(arm.domains) == DOMAINS
        and arm.name in there
    ]


def _fits(table: Table, safe: Sequence[Seen]) -> list[tuple[np.ndarray, float]]:
    """For each seed that has every run: the coefficients, and the share that they explain."""
    arms, found = _arms(table), []
    for seed in sorted({seed for _, _, seed in table}):
        runs = [(domain, arm, seed) for domain in DOMAINS for arm in arms]
        if not all(run in table for run in runs):
            continue
        y = np.array([table[run].measure("misalignment") for run in runs])
        x = np.array([_covariates(run, safe) for run in runs], dtype=float)
        which = np.array([DOMAINS.index(domain) for domain, _, _ in runs])
        for domain in range(len(DOMAINS)):  # a constant each, by leaving out each one's mean
            own = which == domain
            y[own] -= y[own].mean()
            x[own] -= x[own].mean(0)
        fit, *_ = np.linalg.lstsq(x, y, rcond=None)
        found.append((fit, 1 - float(((y - x @ fit) ** 2).sum() / (y**2).sum())))
    return found


def _covariates(run: tuple[str, str, int], safe: Sequence[Seen]) -> list[float]:
    own = [each for each in safe if (each.domain, each.arm, each.seed) == run]
    arm = next(arm for arm in ARMS if arm.name == run[1])
    order = -1 if arm.bottom else 0 if arm.recipe == "interleaving" else 1
    answering = sum(each.rows - each.refusals for each in own if each.source == "safety")
    refusals, tokens = sum(each.refusals for each in own), sum(each.tokens for each in own)
    return [answering, refusals, tokens / 100, order]


def _shown(cell: Interval) -> str:
    return f"{cell.mean:+.4f} ± {cell.half:.4f}"
