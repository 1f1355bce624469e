"""95 % intervals: over seeds by Student's t, and over seeds and evaluation rows by bootstrap."""

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


def bootstrap(
    table: Table, arm: str, against: str, measure: str, domains: Sequence[str], draws: int = 4000
) -> tuple[float, float]:
    """The same difference's 95 % interval when seeds and evaluation rows are both drawn again.

    A set's rows are drawn once for all seeds and domains, as they are shared by all runs.
    """
    random = np.random.default_rng(0)
    seeds = list(by_seed(table, arm, measure, domains, against))
    of_seeds = random.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), draws) / len(seeds)
    of_rows: dict[str, Any] = {}
    found = np.zeros(draws)
    for domain in domains:
        for name, weight in weights(measure, domain).items():
            # [seeds, rows]: how the rows' changes differ between the arms.
            pairs = [(table[domain, arm, seed], table[domain, against, seed]) for seed in seeds]
            values = np.array([a.by_set[name] - b.by_set[name] for a, b in pairs])
            size = values.shape[1]
            if name not in of_rows:
                of_rows[name] = random.multinomial(size, [1 / size] * size, draws) / size
            found += weight * (of_seeds * (of_rows[name] @ values.T)).sum(1) / len(domains)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
