"""How many of the top were never scored by all models: the statistics of a race.

A random audit sample is scored by every model. On it, the final gap is regressed on what is also
known of the other examples: their gaps under the models so far, the aligned model's loss, and the
answer's length. From the residuals of the sample, each other example gets a probability that its
final gap is above a cut. docs/race.md derives it, with sources and assumptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TAIL = 0.1
"""The share of the residuals to which a tail is fitted."""
SHAPE, WEIGHT, HEAVIEST = 0.4, 100, 0.6
"""A tail's shape before any residual is seen, the residuals that it counts as, and the largest
shape; the least is 0, an exponential tail."""
BINS = 512
"""Examples are grouped by their distance to the cut: a chance is smooth in it."""
FOLDS = 10
DRAWS = 4_000


@dataclass(frozen=True)
class Group:
    """Examples of which the same columns are known, binned: `values` are means [columns, bins].

    `columns` are the indexes of these columns, `counts` the number of examples per bin [bins].
    """

    columns: tuple[int, ...]
    values: Floats
    counts: Floats


@dataclass(frozen=True)
class Audit:
    """The audit sample: everything that is known [columns, audit], and the final gaps [audit].

    The columns are the gaps of every model alone, then what else helps to predict the final gap.
    """

    values: Floats
    final: Floats

    def part(self, picked: NDArray[np.bool_]) -> Audit:
        """The sample restricted to the rows that are `picked`."""
        return Audit(self.values[:, picked], self.final[picked])

    def parts(self) -> list[Audit]:
        """The sample without each of its tenths in turn, for a jackknife."""
        fold = np.arange(len(self.final)) % FOLDS
        return [self.part(fold != each) for each in range(FOLDS)]


@dataclass(frozen=True)
class Recall:
    """The estimated recall of a top, its 95 % interval, and how many of the top are missed.

    `halves` are the estimates from each half of the audit sample alone.
    """

    estimate: float
    low: float
    high: float
    missed: float
    halves: tuple[float, float]


class Fit:
    """The final gap as a function of some columns: a plane, a spread along it, and residuals.

    final = h + s z, where h and s are linear in the columns, and z is distributed as in the sample:
    like its residuals or, in the tail beyond `start` (a share of `TAIL`), a generalized Pareto
    distribution.
    """

    def __init__(self, audit: Audit, columns: Sequence[int]) -> None:
        values = audit.values[list(columns)]
        rows = _with_ones(values)
        solve = np.linalg.pinv(rows, 1e-9)  # a column may be constant
        self._weights = solve @ audit.final
        away = np.abs(audit.final - rows @ self._weights)
        self._spread = solve @ away
        self._least = max(float(away.mean()) / 4, 1e-12)
        self.unexplained = float((away**2).mean())
        self._z = np.sort(-self.above(values, audit.final))
        beyond = max(10, round(TAIL * len(self._z)))
        self._share, self._start = beyond / len(self._z), self._z[-beyond - 1]
        self._shape, self._scale = _pareto(self._z[-beyond:] - self._start)

    def above(self, values: Floats, cut: float | Floats) -> Floats:
        """How far examples [columns, examples] are expected to be above a cut: (h - cut) / s."""
        rows = _with_ones(values)
        return np.asarray(
            (rows @ self._weights - cut) / np.maximum(rows @ self._spread, self._least)
        )

    def chance(self, group: Group, cut: float, fitted: bool = True) -> Floats:
        """The expected number of examples per bin [bins] whose final gap is at least `cut`.

        If not `fitted`, only the residuals of the sample count, and nothing is beyond the largest.
        """
        z = -self.above(group.values, cut)
        chance = 1 - np.searchsorted(self._z, z, side="left") / len(self._z)
        if fitted:
            far = z > self._start
            out = (z[far] - self._start) / self._scale
            chance[far] = self._share * (1 + self._shape * out) ** (-1 / self._shape)
        return np.asarray(chance * group.counts)


def _with_ones(values: Floats) -> Floats:
    return np.vstack([np.ones(values.shape[1]), values]).T


def _pareto(excess: Floats) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution, by probability-weighted moments.

    Hosking and Wallis 1987, Technometrics 29(3), where k = -shape. The shape is shrunk towards
    `SHAPE`.
    """
    count, first = len(excess), float(excess.mean())
    second = float((excess * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean())
    shape = 2 - first / max(first - 2 * second, 1e-12)
    shape = (count * shape + WEIGHT * SHAPE) / (count + WEIGHT)
    shape = min(max(shape, 1e-3), HEAVIEST)
    return shape, max(first, 1e-12) * (1 - shape)


def binned(columns: Sequence[int], values: Floats, audit: Audit, top: float) -> Group:
    """Group examples [columns, examples] by how close they come to the best `top`, a share."""
    cut = float(np.quantile(audit.final, 1 - min(top, 1)))
    order = np.argsort(Fit(audit, columns).above(values, cut), kind="stable")
    counts = np.bincount(_places(len(order)), minlength=1).astype(float)
    sums = [np.bincount(_places(len(order)), row[order], len(counts)) for row in values]
    return Group(tuple(columns), np.array(sums) / np.maximum(counts, 1), counts)


def _places(count: int) -> NDArray[np.int64]:
    return np.arange(count) * min(BINS, count) // max(count, 1)


def keep(
    before: Sequence[Group],
    columns: Sequence[int],
    values: Floats,
    audit: Audit,
    top: float,
    allowed: float,
    turns: int,
) -> NDArray[np.bool_]:
    """Which examples can still reach the top, given what is known of them [columns, examples].

    The race drops as many of the others as it may: `allowed` is the number of the top that may be
    missed in all. Those expected among the groups left `before` are subtracted, and the rest is
    divided equally among the remaining `turns`.
    """
    count = len(audit.final) + values.shape[1] + sum(float(of.counts.sum()) for of in before)
    group = binned(columns, values, audit, top / count)
    *others, fit = _fits([*before, group], audit)
    cut = cut_at(top, audit.final, [*others, fit], [*before, group])
    left = (allowed - _missed(others, before, cut)) / turns
    behind = np.cumsum(fit.chance(group, cut))
    logs = [np.cumsum(Fit(part, columns).chance(group, cut)) for part in audit.parts()]
    ok = behind * np.exp(_deviation(np.log(np.array(logs) + 1e-9))) <= left
    # What holds to some depth also holds above it, where next to nothing is missed or known.
    dropped = int(group.counts[: int(np.flatnonzero(ok)[-1]) + 1].sum()) if ok.any() else 0
    at = float(np.quantile(audit.final, 1 - top / count))
    kept = np.ones(values.shape[1], bool)
    kept[np.argsort(fit.above(values, at), kind="stable")[:dropped]] = False
    return kept


def recall(
    groups: Sequence[Group], audit: Audit, known: Floats, top: float | None, cut: float | None
) -> Recall:
    """The recall of the best `top` examples, or of all from the gap `cut` up.

    `known` holds the final gaps of all examples that every model has scored, including the sample.
    """
    if not groups:
        return Recall(1.0, 1.0, 1.0, 0.0, (1.0, 1.0))

    def missed(part: Audit, fitted: bool = True) -> tuple[float, float]:
        fits = _fits(groups, part)
        at = cut_at(float(top or 0), known, fits, groups) if cut is None else cut
        found = _missed(fits, groups, at, fitted)
        return found, top if top is not None else max(found + float((known >= at).sum()), 1e-9)

    plain, of = missed(audit)
    bare = min(missed(audit, fitted=False)[0], plain)
    logs = np.array([np.log(missed(part)[0] + 1e-9) for part in audit.parts()])
    rng = np.random.default_rng(0)
    noise = np.exp(_deviation(logs) * rng.standard_t(FOLDS - 1, DRAWS))
    most = float(np.quantile(rng.poisson(np.minimum(plain * noise, of)), 0.975))
    least = float(np.quantile(rng.poisson(np.minimum(bare * noise, of)), 0.025))
    second = np.arange(len(audit.final)) % 2 == 1
    halves = [1 - each / total for each, total in map(missed, map(audit.part, (~second, second)))]
    return Recall(
        max(0.0, 1 - plain / of),
        max(0.0, 1 - most / of),
        max(0.0, 1 - least / of),
        plain,
        (max(0.0, halves[0]), max(0.0, halves[1])),
    )


def _fits(groups: Sequence[Group], audit: Audit) -> list[Fit]:
    return [Fit(audit, group.columns) for group in groups]


def _deviation(logs: Floats) -> Floats:
    """The jackknife standard deviation of the logarithms of estimates [folds, ...]."""
    return np.asarray(np.sqrt((FOLDS - 1) * logs.var(axis=0)))


def _missed(fits: Sequence[Fit], groups: Sequence[Group], cut: float, fitted: bool = True) -> float:
    """How many examples of these groups are expected to have a final gap of at least `cut`."""
    return sum(
        float(fit.chance(group, cut, fitted).sum()) for fit, group in zip(fits, groups, strict=True)
    )


def cut_at(top: float, known: Floats, fits: Sequence[Fit], groups: Sequence[Group]) -> float:
    """The gap that `top` examples are expected to reach: known ones, and others by probability."""
    ordered = np.sort(known)
    low, high = float(ordered[0]), float(ordered[-1])
    for _ in range(20):
        cut = (low + high) / 2
        above = len(ordered) - int(np.searchsorted(ordered, cut))
        low, high = (cut, high) if above + _missed(fits, groups, cut) > top else (low, cut)
    return high


def first_to_last(audit: Audit, models: int, known: Sequence[int]) -> list[int]:
    """The order of the models: each leaves as little of the final gap unexplained as possible.

    Models are the first columns; the columns `known` are known of every example.
    """
    order: list[int] = []
    while left := [place for place in range(models) if place not in order]:
        order.append(min(left, key=lambda place: Fit(audit, [*order, place, *known]).unexplained))
    return order
