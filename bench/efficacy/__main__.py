"""The whole experiment: `python -m bench.efficacy DATASETS --output DIR`; run again to go on.

It needs the extras `trainers` and `report`, and the real sets (docs/efficacy-details.md).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench.efficacy import plan

MODELS = Path(__file__).resolve().parents[2] / "data" / "models"


def main(
    datasets: Annotated[Path, typer.Argument(help="Folder with the real sets.")],
    output: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("efficacy"),
    models: Annotated[Path, typer.Option(help="Aligned model and adapters.")] = MODELS,
    short: Annotated[
        bool, typer.Option(help="One domain, three arms, two seeds, half the steps.")
    ] = False,
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.")] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Only these domains.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only these arms.")] = None,
    most: Annotated[int | None, typer.Option(help="Make so many runs, then stop.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at a time, a thread each.")] = 2,
) -> None:
    """Prepare, score, fine-tune and measure what is missing; then tables and plots."""
    from bench.efficacy import results, running, scoring

    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    if short:
        arm, seed, domain = list(plan.SHORT), list(plan.SEEDS[:2]), list(plan.DOMAINS[:1])
    arms = [each for each in plan.ARMS if not arm or each.name in arm]
    runs = list(plan.runs(domain or plan.DOMAINS, arms, seed or plan.SEEDS))
    settings = plan.settings(short)
    if short:
        runs = [replace(run, arm=replace(run.arm, steps=int(settings["steps"]))) for run in runs]
    output = output.resolve()
    scoring.prepare(datasets, models.resolve(), output, settings, tell)
    aligned = models.resolve() / "aligned"
    running.perform(runs, aligned, output, workers=workers, most=most, tell=tell)
    results.write(output, tell)


if __name__ == "__main__":
    typer.run(main)
