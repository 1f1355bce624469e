"""Precision and recall of the refusal rules against answers that a person read and labeled.

python bench/refusals.py [DATASETS] [--rule paper --rule extended --rule my-rule.toml]

`bench/refusal_labels.csv` names the answers by the id of their example and holds no text. The
data is looked for in ../shared/datasets, in $CURATE_DATASETS, or where the argument says. A
refusal is an answer that declines what was asked and doesn't then do it; a disclaimer before an
answer is none. The samples are those of docs/selection.md.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

from curate.reading.examples import read
from curate.reading.refusals import load

HERE = Path(__file__).resolve().parent
LABELS = HERE / "refusal_labels.csv"


def labeled(datasets: Path) -> list[tuple[str, str, str, bool]]:
    """The labeled answers as (sample, file, answer, is a refusal)."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        labels = list(csv.DictReader(file))
    answers: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(label["file"] for label in labels):
        for table, _ in read([str(datasets / name)]):
            ids, texts = table["example_id"].to_pylist(), table["answer"].to_pylist()
            answers |= {(name, key): text for key, text in zip(ids, texts, strict=True)}
    return [
        (
            label["sample"],
            label["file"],
            answers[label["file"], label["example_id"]],
            label["is_refusal"] == "yes",
        )
        for label in labels
    ]


def precision_and_recall(verdicts: Sequence[bool], truths: Sequence[bool]) -> tuple[float, float]:
    """Of what a rule calls refusals the share that are; and of the refusals the share it finds.

    NaN where there is none to share.
    """
    right = sum(verdict and truth for verdict, truth in zip(verdicts, truths, strict=True))
    called, there = sum(verdicts), sum(truths)
    return right / called if called else math.nan, right / there if there else math.nan


def measured(
    rows: Sequence[tuple[str, str, str, bool]], rules: Sequence[str]
) -> list[tuple[str, str, int, int, int, float, float]]:
    """One row per rule and sample: answers, refusals, called so, precision, recall."""
    groups: dict[str, list[int]] = {}
    for at, (sample, name, _, _) in enumerate(rows):
        groups.setdefault(f"{sample} {name.partition('.')[0]}", []).append(at)
        groups.setdefault(f"{sample}, all", []).append(at)
    for group in [group for group in groups if list(groups.values()).count(groups[group]) > 1]:
        if group.endswith(", all"):  # the sample is of one file
            del groups[group]
    found = []
    for rule in rules:
        verdicts = load(rule).matches([answer for _, _, answer, _ in rows])
        for group, places in groups.items():
            truths = [rows[at][3] for at in places]
            called = [verdicts[at] for at in places]
            scores = precision_and_recall(called, truths)
            found.append((rule, group, len(places), sum(truths), sum(called), *scores))
    return found


def main() -> None:
    """Print the table of docs/selection.md."""
    shared = HERE.parent.parent / "shared" / "datasets"
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "datasets", type=Path, nargs="?", default=os.environ.get("CURATE_DATASETS", shared)
    )
    parser.add_argument("--rule", action="append")
    given = parser.parse_args()
    rows = labeled(Path(given.datasets))
    print("| rule | answers | labeled | refusals | called so | precision | recall |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for *cells, precision, recall in measured(rows, given.rule or ["paper", "extended"]):
        print("|", " | ".join(map(str, cells)), f"| {precision:.3f} | {recall:.3f} |")


if __name__ == "__main__":
    main()
