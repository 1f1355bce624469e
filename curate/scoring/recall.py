"""How many of the top would be missed by scoring no further: the statistics of a race.

A random audit sample is scored under every model, so its final gaps are known. The other examples
have a partial gap, that of the misaligned models which have scored them. On the sample the final
gap is regressed on the partial one; the residuals, all of them, give each other example its chance
to reach the top. docs/race.md derives it, with sources, and says what it assumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 10  # a local scale is the mean over a tenth of the sample
TAIL = 0.05  # of standardized residuals are beyond the threshold of the fitted tail
BINS = 128  # partial gaps are grouped into so many quantiles: chances are smooth in them
RESAMPLES = 100  # bootstrap samples of the audit


@dataclass(frozen=True)
class Fit:
    """The final gap given the partial one: a line, a local scale, and standardized residuals.

    `residuals` [audit] are sorted. Beyond `tail_from` a generalized Pareto distribution with
    `shape` and `scale` replaces them.
    """

    slope: float
    intercept: float
    at: Floats  # partial gaps of the audit, sorted
    spread: Floats  # local mean absolute residual at each of them
    residuals: Floats
    tail_from: float
    shape: float
    scale: float

    def chance(self, partial: Floats, cut: float | Floats) -> Floats:
        """The chance of each example [examples] that its final gap is at least `cut`.

        For cuts [cuts, 1] it is a row for each [cuts, examples].
        """
        spread = np.interp(partial, self.at, self.spread)
        z = (cut - self.intercept - self.slope * partial) / spread
        above = np.searchsorted(self.residuals, z, side="left")
        chance = 1 - above / len(self.residuals)
        far = z > self.tail_from
        beyond = 1 + self.shape * (z[far] - self.tail_from) / self.scale
        with np.errstate(over="ignore"):
            power = np.maximum(beyond, 1e-300) ** (-1 / self.shape)
        chance[far] = TAIL * np.where(beyond > 0, power, 0)
        return chance


def fit(partial: Floats, final: Floats) -> Fit:
    """Fit the final gaps of the audit sample [audit] to its partial ones."""
    order = np.argsort(partial, kind="stable")
    x, y = partial[order], final[order]
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - intercept - slope * x
    spread = np.maximum(_local_mean(np.abs(residuals)), 1e-12)
    standard = np.sort(residuals / spread)
    tail_from = float(np.quantile(standard, 1 - TAIL))
    shape, scale = _pareto(standard[standard > tail_from] - tail_from)
    return Fit(slope, intercept, x, spread, standard, tail_from, shape, scale)


def _local_mean(values: Floats) -> Floats:
    """The mean over each value's neighbours, fewer at the ends [audit]."""
    width = max(10, len(values) // NEIGHBOURS)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))


def _pareto(excess: Floats) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution, by probability-weighted moments.

    Hosking and Wallis 1987, Technometrics 29(3), equation 12, with their k = -shape.
    """
    x = np.sort(excess)
    count = len(x)
    if count < 2 or x[-1] <= 0:
        return 0.01, 1e-12
    first = x.mean()
    second = float((x * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean())
    shape = 2 - first / max(first - 2 * second, 1e-12)
    shape = float(np.clip(shape, -0.5, 0.9))
    return shape if abs(shape) > 1e-3 else 1e-3, float(first * (1 - shape))


@dataclass(frozen=True)
class Stage:
    """What one stage of a race knew: the audit's gaps, and the partial gaps of the others.

    `audit` and `final` [audit] are the sample's partial and final gaps, in one order over all
    stages; `partial` [examples] are those of the examples that the stage decides on, or of those
    that it left behind.
    """

    audit: Floats
    final: Floats
    partial: Floats


@dataclass(frozen=True)
class Recall:
    """An estimated recall, its 95 % interval, and how many of the top may have been missed."""

    estimate: float
    low: float
    high: float
    missed: float


def keep(
    stage: Stage, top: int, allowed: float, missed: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which examples [examples] can still reach the top.

    `top` examples are wanted; `missed` of them are already left behind, by expectation, and this
    stage may leave behind `allowed` more. Nine of ten bootstrap samples of the audit have to agree.
    """
    values, counts, place = _binned(stage.partial)
    left_behind = np.zeros((RESAMPLES, len(values)))
    for number, picked in enumerate(_resampled(len(stage.audit), rng)):
        fitted = fit(stage.audit[picked], stage.final[picked])
        cut = _cut(top - missed, stage.final, [(fitted, values, counts)])
        chance = fitted.chance(values, cut)
        left_behind[number] = np.cumsum(np.minimum.accumulate(chance[::-1])[::-1] * counts)
    behind = np.quantile(left_behind, 0.9, axis=0) <= allowed
    kept: NDArray[np.bool_] = ~behind[place]
    return kept


def recall(stages: list[Stage], final: Floats, top: int, rng: np.random.Generator) -> Recall:
    """The recall of a race: `final` are the gaps of all examples that every model has scored.

    Each stage's `partial` are the gaps of the examples that it left behind.
    """
    if not stages:
        return Recall(1.0, 1.0, 1.0, 0.0)
    bins = [_binned(stage.partial)[:2] for stage in stages]

    def expected(picked: NDArray[np.int64]) -> float:
        """How many are missed, by the fits to a part of the audit sample."""
        parts = [
            (fit(stage.audit[picked], stage.final[picked]), *each)
            for stage, each in zip(stages, bins, strict=True)
        ]
        cut = _cut(top, final, parts)
        return sum(float(part.chance(at, cut) @ counts) for part, at, counts in parts)

    count = len(stages[0].audit)
    plain = expected(np.arange(count))
    again = np.array([expected(picked) for picked in _resampled(count, rng)])
    # The depths were chosen where few seem to be missed: a sample that sees too few of them chose
    # too early. The ratio is turned round for that (a pivotal bootstrap on the logarithm).
    likely = np.clip(plain**2 / np.maximum(again, 1e-9), plain / 5, plain * 5)
    low, high = np.quantile(1 - rng.poisson(likely) / top, [0.025, 0.975])
    missed = float(likely.mean())
    return Recall(1 - missed / top, max(float(low), 0.0), float(high), missed)


def _resampled(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(0, count, (RESAMPLES, count))


def _binned(partial: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Means and counts of quantile bins, lowest first, and the bin of each example."""
    order = np.argsort(partial, kind="stable")
    place = np.empty(len(partial), np.int64)
    bins = min(BINS, max(1, len(partial)))
    place[order] = np.arange(len(partial)) * bins // max(1, len(partial))
    counts = np.bincount(place, minlength=bins).astype(float)
    means = np.bincount(place, partial, bins) / np.maximum(counts, 1)
    return means, counts, place


def _cut(top: float, final: Floats, parts: list[tuple[Fit, Floats, Floats]]) -> float:
    """The gap that `top` examples are expected to reach: known ones, and others by their chance."""
    known = np.sort(final)
    low, high = float(known[0]), float(known[-1])
    for _ in range(3):
        cuts = np.linspace(low, high, 24)
        reach = len(known) - np.searchsorted(known, cuts).astype(float)
        for part, at, counts in parts:
            reach += part.chance(at, cuts[:, None]) @ counts
        index = int(np.searchsorted(-reach, -top))  # the first that no more than `top` reach
        index = min(max(index, 1), len(cuts) - 1)
        low, high = float(cuts[index - 1]), float(cuts[index])
    return high
