"""The whole experiment: `python -m bench.efficacy DATASETS --output DIR`; run again to go on.

`--model smollm2` makes the one on the real chat model that `make demo-real` fetches.

It needs the extras `trainers` and `report`, and the real sets (docs/efficacy-details.md).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.efficacy import plan

Model = Literal["demo", "smollm2"]
ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "demo": (ROOT / "data/models/aligned", ROOT / "data/models"),
    "smollm2": (ROOT / "runs/real/SmolLM2-135M-Instruct", ROOT / "data/smollm2"),
}
"""The aligned model, and the folder of the adapters that rank."""


def main(
    datasets: Annotated[Path, typer.Argument(help="Folder with the real sets.")],
    output: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("efficacy"),
    model: Annotated[Model, typer.Option(help="The model to fine-tune.")] = "demo",
    aligned: Annotated[Path | None, typer.Option(help="The model, if it lies elsewhere.")] = None,
    short: Annotated[
        bool, typer.Option(help="One domain, two arms, two seeds, a third of the steps.")
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

    experiment = plan.EXPERIMENTS[model]
    if model == "demo":  # tiny, and its published numbers are a CPU's
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if short:
        arm, seed, domain = list(plan.SHORT), list(plan.SEEDS[:2]), list(plan.DOMAINS[:1])
        experiment = replace(experiment, sizes=experiment.sizes.short())
    runs = list(experiment.runs(domain or (), arm or (), seed or ()))
    output, base = output.resolve(), (aligned or MODELS[model][0]).resolve()
    scoring.prepare(datasets, base, MODELS[model][1], output, experiment.sizes, tell)
    running.perform(runs, base, output, workers=workers, most=most, tell=tell)
    results.write(output, experiment, tell)


if __name__ == "__main__":
    typer.run(main)
