"""Simulated races on score matrices: is the recall as wanted, and does its interval hold it?

python bench/race.py [--races 100] [--matrix FILE.npz]...

Each race draws another audit sample (and, where the matrix is made here, another matrix). Prints a
row a setting: the mean share of passes, mean recall, and how often the stated 95 % interval held the
true recall. A FILE.npz has `aligned` [examples] and `losses` [models, examples], in nats a token.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from curate.scoring.recall import Floats, Recall, Stage, keep, recall

Matrix = tuple[Floats, Floats]  # the aligned model's losses [examples], the others' [models, examples]


def gap(aligned: Floats, losses: Floats) -> Floats:
    """The relative gap of an ensemble, as sql/views/gaps.sql has it."""
    return np.asarray((losses.mean(axis=0) - aligned) / (aligned + 1.0))


def race(
    matrix: Matrix, share: float, wanted: float, audit: int, rng: np.random.Generator
) -> tuple[float, float, Recall]:
    """Race over a matrix; the share of a full run's passes, the true recall and the estimated."""
    aligned, losses = matrix
    models, count = losses.shape
    top = int(round(share * count))
    truth = gap(aligned, losses)
    sample = rng.permutation(count)[: min(audit, count // 10)]
    order = first_to_last(aligned[sample], losses[:, sample])
    known = np.zeros(count, bool)
    known[sample] = True
    alive = np.flatnonzero(~known)
    passes = len(sample) * (models + 1) + 2 * len(alive)
    stages: list[Stage] = []
    missed, allowed = 0.0, (1 - wanted) * top
    for done in range(1, models):
        partial = gap(aligned, losses[order[:done]])
        stage = Stage(partial[sample], truth[sample], partial[alive])
        kept = keep(stage, top, allowed / (models - 1), missed, rng)
        stages.append(Stage(stage.audit, stage.final, stage.partial[~kept]))
        missed += allowed / (models - 1)
        alive = alive[kept]
        passes += len(alive)
    known[alive] = True
    estimate = recall(stages, truth[known], top, rng)
    best = np.argsort(-truth, kind="stable")[:top]
    return passes / (count * (models + 1)), float(known[best].mean()), estimate


def first_to_last(aligned: Floats, losses: Floats) -> list[int]:
    """The order of the models: each next one makes the partial gap most like the final one."""
    final, order = gap(aligned, losses), []
    while len(order) < len(losses):
        left = [model for model in range(len(losses)) if model not in order]
        order.append(
            min(left, key=lambda model: unlike(gap(aligned, losses[[*order, model]]), final))
        )
    return order


def unlike(partial: Floats, final: Floats) -> float:
    """The spread of what a line through the partial gaps leaves of the final ones."""
    return float(np.std(final - np.polyval(np.polyfit(partial, final, 1), partial)))


def made(
    count: int, models: int, correlation: float, tails: str, rng: np.random.Generator
) -> Matrix:
    """A matrix whose single-model gaps correlate so; `tails`: normal, heavy or sources."""
    draw: Callable[..., NDArray[np.float64]] = (
        rng.standard_normal if tails != "heavy" else lambda size: rng.standard_t(3, size)
    )
    shared, own = draw(count), draw((models, count))
    if tails == "sources":  # three sources of other means and spreads
        source = rng.integers(0, 3, count)
        own = own * np.array([0.4, 1.0, 1.8])[source]
        shared = shared * np.array([0.6, 1.0, 1.4])[source] + np.array([-1.0, 0.0, 1.0])[source]
    aligned = np.exp(rng.normal(0, 0.4, count))
    gaps = 0.05 + 0.05 * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)
    return aligned, aligned + gaps * (aligned + 1)


def main(
    matrix: Annotated[list[Path] | None, typer.Option(help="Matrices to race over.")] = None,
    races: int = 100,
    examples: int = 20_000,
    audit: int = 2_000,
    share: float = 0.05,
    wanted: float = 0.99,
) -> None:
    """Simulate, and print a row a setting."""
    print("| matrix | K | passes | recall | estimated | interval holds it | missed most |")
    print("|---|---|---|---|---|---|---|")
    real = {}
    for path in matrix or ():
        with np.load(path) as file:
            real[path.stem] = (file["aligned"], file["losses"])
    for name, each in real.items():
        show(name, len(each[1]), lambda rng, each=each: each, races, audit, share, wanted)
    for tails in ("normal", "heavy", "sources") if not real else ():
        for correlation in (0.3, 0.6, 0.8, 0.95):
            for models in (2, 3, 5, 8):
                show(
                    f"{tails}, {correlation}",
                    models,
                    lambda rng, k=models, c=correlation, t=tails: made(examples, k, c, t, rng),
                    races,
                    audit,
                    share,
                    wanted,
                )


def show(
    name: str,
    models: int,
    draw: Callable[[np.random.Generator], Matrix],
    races: int,
    audit: int,
    share: float,
    wanted: float,
) -> None:
    """Race again and again, and print what came out."""
    passes, true, estimated, held = [], [], [], 0
    began = time.monotonic()
    for seed in range(races):
        rng = np.random.default_rng(seed)
        cost, hit, estimate = race(draw(rng), share, wanted, audit, rng)
        passes.append(cost)
        true.append(hit)
        estimated.append(estimate.estimate)
        held += estimate.low - 1e-9 <= hit <= estimate.high + 1e-9
    print(
        f"| {name} | {models} | {np.mean(passes):.2f} | {np.mean(true):.4f} | "
        f"{np.mean(estimated):.4f} | {held / races:.3f} | {1 - min(true):.3f} |",
        flush=True,
    )
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
