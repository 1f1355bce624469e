"""95 % intervals by Student's t: over seeds, and over seeds and evaluation rows together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.efficacy.measures import Changes, weights

# Student's t at 0.975, for 1 to 9 degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Interval:
    """A mean, half its 95 % interval (NaN for one value), and the number of values."""

    mean: float
    half: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.half:.3f}"


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with Student's t."""
    n, mean = len(values), float(np.mean(values)) if len(values) else math.nan
    if n < 2:
        return Interval(mean, math.nan, n)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, _T[min(n - 1, len(_T)) - 1] * error, n)


Table = Mapping[tuple[str, str, int], Changes]
"""By domain, arm and seed."""


def by_seed(
    table: Table, arm: str, measure: str, domains: Sequence[str], against: str | None = None
) -> dict[int, float]:
    """A measure of an arm for each seed that all domains have, averaged over the domains.

    With `against`, the difference to that arm of the same domain and seed: narrow rows, their
    order, the adapter's first weights and the half of the pool are then the same.
    """
    found = {}
    for seed in sorted({seed for _, name, seed in table if name == arm}):
        runs = [table.get((domain, arm, seed)) for domain in domains]
        others = [table.get((domain, against or arm, seed)) for domain in domains]
        pairs = [(a, b) for a, b in zip(runs, others, strict=True) if a and b]
        if len(pairs) == len(domains):
            found[seed] = float(
                np.mean(
                    [a.measure(measure) - (b.measure(measure) if against else 0) for a, b in pairs]
                )
            )
    return found


def over_seeds_and_rows(
    table: Table, arm: str, against: str, measure: str, domains: Sequence[str]
) -> Interval:
    """The same difference, for other seeds and other evaluation rows of the same sets.

    Two-way: the variance of the mean over seeds plus that over each set's rows, a row counted once
    for all seeds and domains, as they share it. What seeds and rows do together is in both, so
    the interval is rather too wide. Degrees of freedom after Satterthwaite (1946).
    """
    by = by_seed(table, arm, measure, domains, against)
    variances = []
    if len(by) > 1:
        variances.append((float(np.var([*by.values()], ddof=1)) / len(by), len(by) - 1))
    of_rows: dict[str, Any] = {}
    for domain in domains:
        for name, weight in weights(measure, domain).items():
            # [seeds, rows]: how the rows' changes differ between the arms.
            pairs = [(table[domain, arm, seed], table[domain, against, seed]) for seed in by]
            values = np.array([a.by_set[name] - b.by_set[name] for a, b in pairs])
            of_rows[name] = of_rows.get(name, 0) + weight * values.mean(0) / len(domains)
    variances += [(float(v.var(ddof=1)) / v.size, v.size - 1) for v in of_rows.values()]
    whole = sum(variance for variance, _ in variances)
    freedom = whole**2 / sum(variance**2 / n for variance, n in variances)
    return Interval(float(np.mean([*by.values()])), _t(freedom) * math.sqrt(whole), len(by))


def _t(freedom: float) -> float:
    """Student's t at 0.975 for any degrees of freedom, simulated to three digits."""
    draws = np.random.default_rng(0).standard_t(freedom, 1_000_000)
    return float(np.quantile(np.abs(draws), 0.95))
