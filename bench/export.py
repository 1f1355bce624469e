"""How long and how much memory a selection takes out of 10^6 and 10^7 scored examples.

python bench/export.py [--rows 1000000] [--models 5] [--runs 3] [--folder DIR]

`plain` takes the top 50,000; `capped` the same through a filter over the source's columns, the
extended rule for refusals, two answers a prompt and one of each group of near-duplicates.

The corpora are made here: answers of 60 words on average out of 4,000, one in ten a near-duplicate
of an earlier one, one in eight a refusal by the paper's rule, ten answers to every prompt. A corpus
that is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parent.parent
PART = 500_000
WANTED = 50_000
PLAIN = ["--top", str(WANTED)]
FILTER = "source <> 'source-3.jsonl' and meta ->> 'category' <> 'c5'"
CAPPED = [*PLAIN, "--refusal-rule", "extended", "--max-similar", "1", "--per-group", "prompt=2"]
EXPORTS = {"plain": PLAIN, "capped": [*CAPPED, "--where", FILTER]}

TEXT = """
with numbered as (
    -- Every tenth row says what the row before it says, but for its last words.
    select i, case when i % 10 = 9 then i - 1 else i end as said,
           20 + hash(i - i % 10) % 80 as words
    from range($first, $last) t(i)
),
written as (
    select i, 'Please explain item ' || (i // 10) || ' to me in a few words.' as prompt,
           case when hash(i, 'refusal') % 8 = 0
               then 'I''m sorry, but I cannot help with that. ' else '' end
           || array_to_string(list_transform(range(words::bigint),
                  lambda w: 'w' || (hash(said, w) % 4000)), ' ') || ' end ' || i as answer
    from numbered
)
select md5(i::varchar) as example_id, 'source-' || (i % 7) || '.jsonl' as source, i + 1 as row,
       [{'role': 'user', 'content': prompt}, {'role': 'assistant', 'content': answer}] as messages,
       prompt, answer, strlen(answer) as n_bytes, starts_with(answer, 'I''m sorry') as is_refusal,
       '{"category":"c' || (i % 13) || '"}' as meta
from written
"""
SCORES = """
select md5(i::varchar) as example_id, (10 + hash(i - i % 10) % 80)::integer as n_tokens,
       -- Near-duplicates score alike, as they do in a real corpus.
       -(10 + hash(i - i % 10) % 80)::double
       * ($offset + (hash((i - i % 2), $offset) % 1000000) / 1e6 + (hash(i) % 1000) / 1e6)
       as logprob,
       false as truncated
from range($first, $last) t(i)
"""


def make(folder: Path, rows: int, models: int) -> None:
    """Write a corpus of `rows` examples under `models` models, the first the aligned one."""
    sys.path.insert(0, str(ROOT / "tests"))
    from corpora import SETTINGS, entry

    from curate.corpus.writer import open_for_writing

    names = ["aligned", *(f"misaligned-{number}" for number in range(1, models))]
    with open_for_writing(folder) as writer:
        writer.add_models({n: entry(n.partition("-")[0]) for n in names}, SETTINGS)
    connection = duckdb.connect()
    for part, first in enumerate(range(0, rows, PART)):
        last = min(first + PART, rows)
        _copy(connection, TEXT, folder / "examples", part, {"first": first, "last": last})
        for offset, name in enumerate(names, 1):
            values = {"first": first, "last": last, "offset": offset}
            _copy(connection, SCORES, folder / "scores" / name, part, values)


def _copy(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    folder: Path,
    part: int,
    values: dict[str, int],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{part:06d}.parquet"
    connection.sql(query, params=values).write_parquet(str(path), compression="zstd")


def measure(corpus: Path, options: list[str]) -> dict[str, float]:
    """Seconds, seconds of processor time and peak MiB of one export in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["curate", "export", "-c", str(corpus), "-o", f"{folder}/safe.parquet", *options]
        began = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
    if ran.returncode:
        raise SystemExit(ran.stderr)
    cpu, memory = ran.stderr.split()[-2:]
    return {"seconds": round(seconds, 1), "cpu": round(float(cpu), 1), "mib": int(memory)}


_MEASURED = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module("curate", run_name="__main__")
except SystemExit as ended:
    code = ended.code
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, file=sys.stderr)
raise SystemExit(code)
"""


def main() -> None:
    """Make a corpus and time the exports on it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)) / f"{given.rows}x{given.models}"
        if not folder.exists():
            make(folder, given.rows, given.models)
        for name, options in EXPORTS.items():
            runs = [measure(folder, options) for _ in range(given.runs)]
            medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            print(json.dumps({"rows": given.rows, "export": name} | medians), flush=True)


if __name__ == "__main__":
    main()
