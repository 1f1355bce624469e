"""How many of the top were never scored by all models: the statistics of a race.

A random audit sample is scored by every model. On it the final gap is regressed on the gaps of the
models that have scored the other examples, too; the sample's residuals give each of the others its
chance to have a final gap above a cut. docs/race.md derives it, with sources and assumptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TAIL = 0.1
"""The share of the residuals to which a tail is fitted."""
HEAVIEST = 0.5
"""The largest shape of a fitted tail; its least is 0, an exponential one."""
BINS = 512
"""Examples are grouped by quantiles of what is predicted: a chance is smooth in it."""
FOLDS = 10
DRAWS = 4_000


@dataclass(frozen=True)
class Group:
    """Examples that the same models have scored, binned: `gaps` are means [models, bins].

    `models` are the places of these models, `counts` the examples of each bin [bins].
    """

    models: tuple[int, ...]
    gaps: Floats
    counts: Floats


@dataclass(frozen=True)
class Audit:
    """The sample: the gap of every model alone [models, audit], and the final one [audit]."""

    gaps: Floats
    final: Floats


@dataclass(frozen=True)
class Recall:
    """The estimated recall of a top, its 95 % interval, and how many of the top are missed.

    `halves` are the estimates by either half of the audit sample alone.
    """

    estimate: float
    low: float
    high: float
    missed: float
    halves: tuple[float, float]


class Fit:
    """The final gap by some models' gaps: a line, a spread along it, residuals and their tail.

    final = h + s(h) z, with h linear in the gaps, s linear in h, and z as in the sample: among its
    residuals, or beyond `start`, where `TAIL` of them are, by a generalized Pareto distribution.
    """

    def __init__(self, gaps: Floats, final: Floats) -> None:
        self.weights = np.linalg.lstsq(_with_ones(gaps), final, rcond=None)[0]
        predicted = self.predict(gaps)
        away = np.abs(final - predicted)
        self._spread = np.polyfit(predicted, away, min(len(gaps), 1))
        self._least = max(float(away.mean()) / 4, 1e-12)
        self._z = np.sort((final - predicted) / self.spread(predicted))
        beyond = max(10, round(TAIL * len(self._z)))
        self._share, self._start = beyond / len(self._z), self._z[-beyond - 1]
        self._shape, self._scale = _pareto(self._z[-beyond:] - self._start)

    def predict(self, gaps: Floats) -> Floats:
        """The final gaps expected of examples, h [examples]."""
        return np.asarray(_with_ones(gaps) @ self.weights)

    def spread(self, predicted: Floats) -> Floats:
        """The mean absolute residual there, s(h) [examples]."""
        return np.asarray(np.maximum(np.polyval(self._spread, predicted), self._least))

    def chance(self, gaps: Floats, cut: float, fitted: bool = True) -> Floats:
        """The chance of each example [examples] to have a final gap of at least `cut`.

        Not `fitted`: by the sample's residuals alone, none of which is beyond the largest.
        """
        predicted = self.predict(gaps)
        z = (cut - predicted) / self.spread(predicted)
        chance = 1 - np.searchsorted(self._z, z, side="left") / len(self._z)
        if fitted:
            far = z > self._start
            out = (z[far] - self._start) / self._scale
            chance[far] = self._share * (1 + self._shape * out) ** (-1 / self._shape)
        return chance


def _with_ones(gaps: Floats) -> Floats:
    return np.vstack([np.ones(gaps.shape[1]), gaps]).T


def _pareto(excess: Floats) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution, by probability-weighted moments.

    Hosking and Wallis 1987, Technometrics 29(3), with their k = -shape.
    """
    count, first = len(excess), float(excess.mean())
    second = float((excess * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean())
    shape = 2 - first / max(first - 2 * second, 1e-12)
    shape = min(max(shape, 1e-3), HEAVIEST)
    return shape, max(first, 1e-12) * (1 - shape)


def binned(models: Sequence[int], gaps: Floats, audit: Audit) -> Group:
    """Group examples [models, examples] by what the audit sample predicts of them."""
    count = gaps.shape[1]
    bins = min(BINS, max(count, 1))
    order = np.argsort(Fit(audit.gaps[list(models)], audit.final).predict(gaps), kind="stable")
    place = np.arange(count) * bins // max(count, 1)
    counts = np.bincount(place, minlength=bins).astype(float)
    sums = np.array([np.bincount(place, row[order], bins) for row in gaps]).reshape(-1, bins)
    return Group(tuple(models), sums / np.maximum(counts, 1), counts)


def keep(
    before: Sequence[Group],
    models: Sequence[int],
    gaps: Floats,
    audit: Audit,
    top: float,
    allowed: float,
    turns: int,
) -> NDArray[np.bool_]:
    """Which examples can still reach the top, by these models' gaps [models, examples].

    The race leaves behind as many more as it may: `allowed` of the top in all, those of the groups
    left `before` counted, and an equal part of the rest in each of the `turns` that are left.
    """
    group = binned(models, gaps, audit)
    groups = [*before, group]
    whole = _fits(groups, audit)
    cut = cut_at(top, audit.final, whole, groups)
    left = (allowed - _missed(whole[:-1], before, cut)) / turns
    behind = np.cumsum(whole[-1].chance(group.gaps, cut) * group.counts)
    logs = [
        np.log(np.cumsum(fit.chance(group.gaps, cut_, True) * group.counts) + 1e-9)
        for fit, cut_ in _folds(groups, audit, top)
    ]
    ok = behind * np.exp(_deviation(np.array(logs))) <= left
    dropped = int(group.counts[: int(np.argmin(ok)) if not ok.all() else len(ok)].sum())
    order = np.argsort(whole[-1].predict(gaps), kind="stable")
    kept = np.ones(gaps.shape[1], bool)
    kept[order[:dropped]] = False
    return kept


def recall(
    groups: Sequence[Group], audit: Audit, known: Floats, top: float | None, cut: float | None
) -> Recall:
    """The recall of the best `top` examples, or of all from the gap `cut` on.

    `known` are the final gaps of all examples that every model has scored, the audit's too.
    """
    if not groups:
        return Recall(1.0, 1.0, 1.0, 0.0, (1.0, 1.0))

    def missed(picked: NDArray[np.bool_] | slice, fitted: bool = True) -> tuple[float, float]:
        part = Audit(audit.gaps[:, picked], audit.final[picked])
        fits = _fits(groups, part)
        at = cut_at(float(top or 0), known, fits, groups) if cut is None else cut
        found = _missed(fits, groups, at, fitted)
        return found, top if top is not None else max(found + float((known >= at).sum()), 1e-9)

    plain, of = missed(slice(None))
    bare = min(missed(slice(None), fitted=False)[0], plain)
    fold = np.arange(len(audit.final)) % FOLDS
    logs = np.array([np.log(missed(fold != each)[0] + 1e-9) for each in range(FOLDS)])
    rng = np.random.default_rng(0)
    noise = np.exp(_deviation(logs) * rng.standard_normal(DRAWS))
    most = float(np.quantile(rng.poisson(plain * noise), 0.975))
    least = float(np.quantile(rng.poisson(bare * noise), 0.025))
    halves = [missed(np.arange(len(fold)) % 2 == each) for each in (0, 1)]
    first, second = (max(0.0, 1 - each / total) for each, total in halves)
    return Recall(
        max(0.0, 1 - plain / of),
        max(0.0, 1 - most / of),
        max(0.0, 1 - least / of),
        plain,
        (first, second),
    )


def _fits(groups: Sequence[Group], audit: Audit) -> list[Fit]:
    return [Fit(audit.gaps[list(group.models)], audit.final) for group in groups]


def _folds(groups: Sequence[Group], audit: Audit, top: float) -> list[tuple[Fit, float]]:
    """For each tenth of the sample that is left out, the last group's fit and the cut."""
    found = []
    for number in range(FOLDS):
        picked = np.arange(len(audit.final)) % FOLDS != number
        part = Audit(audit.gaps[:, picked], audit.final[picked])
        fits = _fits(groups, part)
        found.append((fits[-1], cut_at(top, audit.final, fits, groups)))
    return found


def _deviation(logs: Floats) -> Floats:
    """The jackknife's standard deviation of estimates' logarithms [folds, ...]."""
    return np.asarray(np.sqrt((FOLDS - 1) * logs.var(axis=0)))


def _missed(fits: Sequence[Fit], groups: Sequence[Group], cut: float, fitted: bool = True) -> float:
    """How many examples of these groups are expected to have a final gap of at least `cut`."""
    pairs = zip(fits, groups, strict=True)
    return sum(float(fit.chance(of.gaps, cut, fitted) @ of.counts) for fit, of in pairs)


def cut_at(top: float, known: Floats, fits: Sequence[Fit], groups: Sequence[Group]) -> float:
    """The gap that `top` examples are expected to reach: known ones, and others by their chance."""
    ordered = np.sort(known)
    low, high = float(ordered[0]), float(ordered[-1])
    for _ in range(20):
        cut = (low + high) / 2
        above = len(ordered) - int(np.searchsorted(ordered, cut))
        low, high = (cut, high) if above + _missed(fits, groups, cut) > top else (low, cut)
    return high


def first_to_last(audit: Audit) -> list[int]:
    """The models' order: each next one leaves the least of the final gap unexplained."""
    order: list[int] = []
    while left := [place for place in range(len(audit.gaps)) if place not in order]:
        order.append(min(left, key=lambda place: _unexplained(audit, [*order, place])))
    return order


def _unexplained(audit: Audit, models: Sequence[int]) -> float:
    fit = Fit(audit.gaps[list(models)], audit.final)
    return float(np.var(audit.final - fit.predict(audit.gaps[list(models)])))
