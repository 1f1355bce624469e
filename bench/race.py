"""Simulated races on score matrices: is the recall as wanted, and does its interval hold it?

python bench/race.py [--races 100] [--corpus DIR]...

Each race draws another audit sample, and where no corpus is named another matrix. Prints a row a
setting: the mean share of a full run's passes, mean recall, and how often the stated 95 % interval
held the true recall. A corpus must be scored whole; its gaps are relative, with an epsilon of 1.
The audit sample is a tenth, at most `--audit`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import curate
from curate.corpus.race import field
from curate.corpus.recall import Audit, Floats, Group, Recall, binned, first_to_last, keep, recall
from curate.scoring.race import WORTH

FEWEST = 2_000
"""A corpus with fewer examples is too small to race over as it is."""


def race(
    values: Floats,
    models: int,
    top: int,
    wanted: float,
    audit: int,
    rng: np.random.Generator,
    proxy: bool = False,
) -> tuple[float, float, Recall]:
    """Race over the first `models` of the columns: share of passes, true recall, and estimate.

    With a `proxy`, which is the last column, it goes first.
    """
    count = values.shape[1]
    facts = list(range(models, len(values)))
    truth = values[:models].mean(axis=0)
    known = np.zeros(count, bool)
    sample = rng.permutation(count)[: min(audit, count // 10)]
    known[sample] = True
    seen = Audit(values[:, sample], truth[sample])
    order = first_to_last(seen, models, facts)
    alive = np.flatnonzero(~known)
    passes = len(sample) * (models + 1) + (0 if proxy else 2 * len(alive))
    behind: list[Group] = []
    for done in range(0 if proxy else 1, models):
        have = [*order[:done], *facts] if done else facts[-1:]
        partial = values[have][:, alive]
        kept = keep(behind, have, partial, seen, top, (1 - wanted) * top, models - done)
        if kept.mean() < WORTH:
            behind.append(binned(have, partial[:, ~kept], seen, top / count))
            alive = alive[kept]
        passes += len(alive) * (1 if done else 2)
    known[alive] = True
    best = np.argsort(-truth, kind="stable")[:top]
    found = recall(behind, seen, truth[known], top, None)
    return passes / (count * (models + 1)), float(known[best].mean()), found


def made(
    count: int, models: int, correlation: float, kind: str, rng: np.random.Generator
) -> Floats:
    """Single models' gaps that correlate so; `kind`: normal, heavy (Student's t3) or sources."""

    def draw(*size: int) -> Floats:
        return rng.standard_t(3, size) if kind == "heavy" else rng.standard_normal(size)

    shared, own = draw(count), draw(models, count)
    if kind == "sources":  # three, of other means and spreads
        source = rng.integers(0, 3, count)
        own = own * np.array([0.4, 1.0, 1.8])[source]
        shared = shared * np.array([0.6, 1.0, 1.4])[source] + np.array([-1.0, 0.0, 1.0])[source]
    return np.asarray(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def scored(folder: Path) -> tuple[Floats, int]:
    """What is known of a corpus's examples [columns, examples]; how many columns are models'."""
    pool = field(curate.open(folder), 0)
    return pool.values[:, np.isfinite(pool.values).all(axis=0)], len(pool.models)


def redrawn(values: Floats, count: int, rng: np.random.Generator) -> Floats:
    """A pool of `count` examples like those of a small one, each moved by a tenth of the spread."""
    noise = 0.1 * values.std(axis=1, keepdims=True) * rng.standard_normal((len(values), count))
    return np.asarray(values[:, rng.integers(0, values.shape[1], count)] + noise)


def main(
    corpus: Annotated[list[Path] | None, typer.Option(help="Race over these.")] = None,
    models: Annotated[list[int] | None, typer.Option(help="Of made gaps. Default: 2 to 8.")] = None,
    races: int = 100,
    examples: int = 5_000,
    audit: int = 2_000,
    proxy: Annotated[float | None, typer.Option(help="A made proxy's correlation.")] = None,
    share: float = 0.05,
    wanted: float = 0.99,
) -> None:
    """Simulate, and print a row a setting."""
    print("| gaps | K | passes | recall | estimated | low end | in the interval | least recall |")
    print("|---|---|---|---|---|---|---|---|")

    def show(name: str, k: int, draw: Callable[[np.random.Generator], Floats]) -> None:
        rows = []
        for seed in range(races):
            rng = np.random.default_rng(seed)
            values = draw(rng)
            if proxy is not None:
                final = values[:k].mean(axis=0)
                noise = final.std() * rng.standard_normal(len(final))
                values = np.vstack([values, proxy * final + np.sqrt(1 - proxy**2) * noise])
            top = round(share * values.shape[1])
            passes, true, found = race(values, k, top, wanted, audit, rng, proxy is not None)
            held = found.low - 1e-9 <= true <= found.high + 1e-9
            rows.append((passes, true, found.estimate, found.low, held, true))
        means = np.mean(rows, axis=0)
        print(
            f"| {name} | {k} | {means[0]:.2f} | {means[1]:.4f} | {means[2]:.4f} | "
            f"{means[3]:.3f} | {means[4]:.3f} | {min(row[5] for row in rows):.3f} |",
            flush=True,
        )

    for folder in corpus or ():
        known, k = scored(folder)
        if known.shape[1] < FEWEST:
            name = f"{folder.name}, redrawn"
            show(name, k, lambda rng, of=known: redrawn(of, examples, rng))
        else:
            show(folder.name, k, lambda _, of=known: of)
    for k in models or (2, 3, 5, 8) if not corpus else ():
        for kind in ("normal", "heavy", "sources"):
            for correlation in (0.3, 0.6, 0.8, 0.95):
                show(
                    f"{kind}, {correlation}",
                    k,
                    lambda rng, k=k, c=correlation, kind=kind: made(examples, k, c, kind, rng),
                )


if __name__ == "__main__":
    typer.run(main)
