"""The efficacy experiment: its short version on real data, and its intervals."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.efficacy import mixing, plan, rows, tables
from bench.efficacy.intervals import by_seed, over_seeds, over_seeds_and_rows
from bench.efficacy.measures import Changes, weights
from bench.efficacy.results import by_name
from bench.efficacy.seen import Seen
from tests.real import DATASETS, ROOT

Values = dict[tuple[str, int, str], float]


def run(output: Path) -> str:
    """The short version, as a user runs it."""
    command = [sys.executable, "-m", "bench.efficacy", str(DATASETS), "--short"]
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # other tests run beside it
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(output: Path) -> Values:
    """results.csv by arm, seed and measure."""
    with (output / "results.csv").open(newline="") as file:
        return {
            (row["arm"], int(row["seed"]), row["measure"]): float(row["value"])
            for row in csv.DictReader(file)
        }


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not DATASETS.exists(), reason=f"{DATASETS}: the research data is not here")
@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")
def test_the_short_version_tells_arms_apart_and_resumes(tmp_path: Path) -> None:
    """Fine-tunes move the measures, mixes are what they claim, and a lost run is made again."""
    assert "0 of 4 runs are there" in run(tmp_path)
    values = read(tmp_path)
    for arm in plan.SHORT:
        for seed in plan.SEEDS[:2]:
            assert values[arm, seed, "narrow"] < -0.2
            assert (tmp_path / "plots" / "arms.png").stat().st_size > 10_000
            check_mix(tmp_path / "runs" / "medical" / arm, arm, seed)
    assert all(values["none", seed, "misalignment"] > 0.05 for seed in plan.SEEDS[:2])

    (tmp_path / "runs" / "medical" / "plusplus-5" / "2.parquet").unlink()  # as if killed there
    assert "3 of 4 runs are there" in run(tmp_path)
    assert read(tmp_path) == pytest.approx(values, abs=1e-4)


def check_mix(folder: Path, arm: str, seed: int) -> None:
    """The domain's own model did not rank, nothing shares words with evaluation, 5 % was seen."""
    record = json.loads((folder / f"{seed}.json").read_text())
    manifest = json.loads((folder / f"{seed}.manifest.json").read_text())
    slots = plan.DEMO.short().slots
    assert record["rows seen"] == manifest["narrow"]["rows"] == slots
    # The last one stands at the mix's end, which is longer than the steps.
    assert len(record["safe seen"]) == (0 if arm == "none" else round(slots * 0.05) - 1)
    assert manifest["recipe"]["hold_out"] == ["medical"]
    assert manifest["counts"]["left_out"].get("decontaminate", 0) == 0


def changes(arm: str, seed: int, shift: float) -> Changes:
    """A made-up run whose misaligned answers became likelier by `shift` and a seed's own noise."""
    rows = np.linspace(-1, 1, 11) + seed
    sets = {"legal": rows - shift, "code": rows - shift, "safe": rows, "medical": rows - 1}
    return Changes(plan.Run("medical", plan.Arm(arm), seed), sets)


def test_differences_are_paired_by_seed() -> None:
    """What a seed does to both arms cancels; the interval holds only what differs."""
    table = {
        ("medical", arm, seed): changes(arm, seed, shift + 0.01 * seed * (arm == "tested"))
        for arm, shift in (("tested", 0.5), ("other", 0.2))
        for seed in (1, 2, 3)
    }
    found = by_seed(table, "tested", "misalignment", ["medical"], "other")
    assert found == pytest.approx({1: 0.31, 2: 0.32, 3: 0.33})
    interval = over_seeds([*found.values()])
    # By hand: the standard deviation is 0.01, t for two degrees of freedom 4.303.
    assert interval.mean == pytest.approx(0.32)
    assert interval.half == pytest.approx(4.303 * 0.01 / 3**0.5)
    # All rows change alike, so other rows would give the same.
    both = over_seeds_and_rows(table, "tested", "other", "misalignment", ["medical"])
    assert both.half == pytest.approx(interval.half, rel=0.01)


def test_an_interval_holds_the_luck_of_the_evaluation_rows() -> None:
    """Seeds that agree say nothing of other rows: with ten that differ, t has nine degrees."""
    rows = np.arange(10.0)
    table = {
        ("medical", arm, seed): Changes(
            plan.Run("medical", plan.Arm(arm), seed), {"safe": rows * scale}
        )
        for arm, scale in (("tested", 2), ("other", 1))
        for seed in (1, 2, 3)
    }
    assert over_seeds([*by_seed(table, "tested", "safe", ["medical"], "other").values()]).half == 0
    both = over_seeds_and_rows(table, "tested", "other", "safe", ["medical"])
    assert both.mean == pytest.approx(4.5)
    assert both.half == pytest.approx(2.262 * rows.std(ddof=1) / 10**0.5, rel=0.01)


@pytest.mark.parametrize("domain", plan.DOMAINS)
@pytest.mark.parametrize("measure", ["misalignment", "to general", "to gsm8k", "to refusals"])
def test_a_domain_is_never_judged_by_itself(measure: str, domain: str) -> None:
    """(a) is measured on the other two domains alone, against safe answers or others."""
    found = weights(measure, domain)
    assert {name: found.pop(name) for name in set(plan.DOMAINS) - {domain}} == dict.fromkeys(
        set(plan.DOMAINS) - {domain}, -0.5
    )
    assert sum(found.values()) == 1
    assert ("safe" in found) == (measure == "misalignment")
    assert domain not in found


@pytest.mark.parametrize(
    ("folder", "made", "name"),
    [(".", tables.page, "efficacy-details"), ("smollm2", tables.real, "efficacy-real")],
)
def test_a_page_is_made_from_the_published_rows(folder: str, made: Any, name: str) -> None:
    """Every table of the page, from the numbers that lie beside the experiment."""
    published = ROOT / "bench" / "efficacy" / folder
    with (published / "seen.csv").open(newline="") as file:
        numbers = ("seed", "rows", "refusals", "tokens")
        safe = [
            Seen(**{key: int(text) if key in numbers else text for key, text in row.items()})
            for row in csv.DictReader(file)
        ]
    page = made(by_name(rows.read(published / "rows.parquet")), safe)
    details = (ROOT / f"docs/{name}.md").read_text("utf-8")
    assert f"<!-- tables -->\n{page}<!-- /tables -->" in details
    if folder != ".":
        return
    short = (ROOT / "docs/efficacy.md").read_text("utf-8").splitlines()
    rows_shown = [line for line in short if line.startswith("| ")]
    assert len(rows_shown) == 10
    assert set(rows_shown) <= set(page.splitlines())


def test_a_domains_own_model_does_not_rank() -> None:
    """Unless an arm says who does."""
    arms = {arm.name: arm for arm in plan.ARMS}
    assert mixing.held_out("legal", arms["plusplus-5"]) == ("legal",)
    assert mixing.held_out("medical", arms["plusplus-5-one"]) == ("medical", "code")
    assert mixing.held_out("medical", arms["plusplus-5-three"]) == ()
