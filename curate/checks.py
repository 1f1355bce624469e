"""What makes a backend's numbers right: the checks of `curate verify`, and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.probes import NOTHING

LIMITS = {"float32": 1e-4}
"""Nats per answer token that an NLL may be off, by dtype; others have `COARSE_LIMIT`."""
COARSE_LIMIT = 2e-2
COARSE_TOKENS = 16
"""In half precision a shorter answer may be off by as much in all as one of so many tokens: a token
alone is off by more than the limit, and fewer tokens are not off by more in all."""
RANK_LIMIT = 1e-3
"""1 minus the rank correlation, in half precision."""
RANK_ROWS = 200
"""Ranks are compared from so many examples on: of 32, three swaps of neighbours whose numbers are
all but equal, which any rounding does, come to more than the limit."""

Nlls = npt.NDArray[np.float64]
"""Nats per answer token of each example."""


@dataclass(frozen=True)
class Check:
    """One thing tried with one model: the largest distance in nats per token, and its limit."""

    model: str
    what: str
    off: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What was tried on how many examples, with which backend, and whether all of it held."""

    backend: str
    dtype: str
    rows: int
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether the numbers can be relied on."""
        return all(check.passed for check in self.checks)


def compare(
    names: Sequence[str],
    dtype: str,
    lengths: Sequence[int],
    forward: Mapping[str, Nlls],
    backward: Mapping[str, Nlls],
    plain: Mapping[str, Nlls],
) -> list[Check]:
    """All checks, model by model; the first of `names` is the aligned one.

    `lengths`: answer tokens of each example. `forward` and `backward`: the backend's NLLs with
    the examples in order and in reversed order; `plain` the plain loop's.
    """
    limit = LIMITS.get(dtype, COARSE_LIMIT)
    coarse = limit == COARSE_LIMIT
    share = np.minimum(lengths, COARSE_TOKENS) / COARSE_TOKENS if coarse else np.ones(len(lengths))
    first = forward[names[0]]
    checks = []
    for name in names:
        found = forward[name]
        checks.append(_near(name, "equals the plain loop", found, plain[name], share, limit))
        if coarse and len(found) >= RANK_ROWS:
            checks.append(_ranks(name, found, plain[name]))
        checks.append(_near(name, "same in reversed order", found, backward[name], share, limit))
        if name == NOTHING:
            checks.append(_near(name, "zeros change nothing", found, first, share, limit))
        elif name != names[0]:
            checks.append(_differs(name, found, first, limit))
    return checks


def _near(name: str, what: str, found: Nlls, wanted: Nlls, share: Nlls, limit: float) -> Check:
    """They are nowhere further apart than the limit; NaN is. Each distance counts by its share."""
    off = float((np.abs(found - wanted) * share).max())
    return Check(name, what, off, limit, bool(off <= limit))


def _differs(name: str, found: Nlls, aligned: Nlls, limit: float) -> Check:
    """Somewhere they are further apart than noise: the adapter or checkpoint is in use."""
    off = float(np.abs(found - aligned).max())
    return Check(name, "differs from aligned", off, limit, bool(off > limit))


def _ranks(name: str, found: Nlls, wanted: Nlls) -> Check:
    """Spearman's rank correlation, as its distance from 1."""
    a, b = (np.argsort(np.argsort(nlls, kind="stable")).astype(float) for nlls in (found, wanted))
    off = 1 - float(np.corrcoef(a, b)[0, 1])
    return Check(name, "ranks like the plain loop", off, RANK_LIMIT, bool(off <= RANK_LIMIT))
