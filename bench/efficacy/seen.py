"""Which safe rows the runs trained on: composition, refusals and lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import curate
from bench.demo_sets import GENERAL
from bench.efficacy.plan import Arm, Run

_SEEN = """
select source, count(*) as rows, count(*) filter (is_refusal) as refusals, sum(n_tokens) as tokens
from (select unnest($ids) as example_id)
join examples using (example_id)
join (select example_id, n_tokens from scores where model = 'aligned') using (example_id)
group by source order by source
"""


@dataclass(frozen=True)
class Seen:
    """Safe rows of one source that one run trained on; `tokens` are their answers'."""

    domain: str
    arm: str
    seed: int
    source: str
    rows: int
    refusals: int
    tokens: int


def read(folder: Path, runs: Sequence[Run]) -> list[Seen]:
    """Look up what each run saw."""
    found = []
    for run in sorted(runs, key=lambda run: run.path):
        record = json.loads((folder / "runs" / f"{run.path}.json").read_text(encoding="utf-8"))
        rows = (
            curate.open(folder / run.arm.corpus).sql(_SEEN, {"ids": record["safe seen"]}).fetchall()
        )
        found += [
            Seen(run.domain, run.arm.name, run.seed, _named(run, source), *map(int, numbers))
            for source, *numbers in rows
        ]
    return found


def _named(run: Run, source: str) -> str:
    return "own" if run.arm.corpus == "own" else Path(source).stem


def table(seen: Sequence[Seen], arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a line an arm, over all its runs."""
    sources = [*GENERAL, *sorted({each.source for each in seen} - {*GENERAL})]
    yield (
        "| arm | selected rows per run | "
        + " | ".join(sources)
        + " | refusals | tokens per answer |"
    )
    yield "| --- | --- |" + " --- |" * (len(sources) + 2)
    for arm in arms:
        own = [each for each in seen if each.arm == arm.name]
        if not own:
            continue
        rows = sum(each.rows for each in own)
        runs = len({(each.domain, each.seed) for each in own})
        shares = [sum(e.rows for e in own if e.source == name) / rows for name in sources]
        shares.append(sum(each.refusals for each in own) / rows)
        cells = " | ".join(f"{share:.0%}" for share in shares)
        tokens = sum(each.tokens for each in own) / rows
        yield f"| {arm.name} | {rows / runs:.1f} | {cells} | {tokens:.0f} |"
