"""Named queries against the same questions written by hand over the Parquet parts.

    python bench/sql.py --examples 1000000

Makes a corpus of N examples under one aligned and five misaligned models, then asks each question
both ways, each in a process of its own with two threads. Processor seconds are compared, as they
hold on a busy machine too. A hand-written query knows what the named one has to find out: that
every example is scored by all models, that they tokenize alike, and which columns are asked for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sql_corpus import ALIGNED, MISALIGNED, make

THREADS = 2
_SCORES = "read_parquet('{root}/scores/{model}/*.parquet')"
_EXAMPLES = "read_parquet('{root}/examples/*.parquet')"
_LOSSES = """
    aligned as (select example_id, n_tokens, -logprob / n_tokens as base from {aligned}),
    each as ({each}),
    ensemble as (select example_id, avg(loss) as worse from each group by example_id),
    gaps as (select example_id, n_tokens, base, worse, (worse - base) / (base + 1) as gap
             from aligned join ensemble using (example_id))
"""
_FLAGS = "(select example_id, is_refusal, source from {examples})"
_MODELS = """
    alone as (select example_id, model, (loss - base) / (base + 1) as gap,
                     ((worse * 5 - loss) / 4 - base) / (base + 1) as without, gaps.gap as whole
              from each join gaps using (example_id))
"""
BY_HAND = {
    "top_gaps": "select gap, base, worse, prompt, answer from gaps join {examples} using "
    "(example_id) where not is_refusal order by gap desc, example_id limit 20",
    "bottom_gaps": "select gap, base, worse, prompt, answer from gaps join {examples} using "
    "(example_id) order by gap, example_id desc limit 20",
    "by_source": "select source, count(*), avg(base), avg(worse), avg(gap), median(gap), "
    "count(*) filter (rank <= 100) from (select *, row_number() over (order by gap desc) as rank "
    "from gaps) join {flags} using (example_id) group by source",
    "by_length": "select floor(log2(n_tokens)), count(*), avg(base), avg(worse), avg(gap), "
    "median(gap), count(*) filter (rank <= 1000) from (select *, row_number() over (order by gap "
    "desc) as rank from gaps) join {flags} using (example_id) group by 1",
    "refusals": "select rank, refusals from (select row_number() over (order by gap desc) as rank, "
    "sum(is_refusal::int) over (order by gap desc) as refusals from gaps join {flags} using "
    "(example_id)) where rank in (10, 100, 1000, 10000, 100000)",
    "disagreement": "select spread, prompt, answer from (select example_id, max(gap) - min(gap) as "
    "spread from alone group by example_id order by spread desc limit 20) join {examples} using "
    "(example_id)",
    "leave_one_out": "select model, count(*) filter (place <= 1000 and whole_place <= 1000) from "
    "(select model, row_number() over (partition by model order by without desc) as place, "
    "row_number() over (partition by model order by whole desc) as whole_place from alone join "
    "{flags} using (example_id) where not is_refusal) group by model",
    "agreement": "select a.model, b.model, corr(a.place, b.place) from ranked as a "
    "join ranked as b on a.example_id = b.example_id and a.model < b.model group by all",
    "epsilon_sweep": "select epsilon, avg(base), avg(worse), avg(n_tokens) from (select epsilon, "
    "base, worse, n_tokens from gaps join {flags} using (example_id) cross join "
    "(select unnest([0, 0.01, 0.1, 0.3, 1, 3, 10]) as epsilon) where not is_refusal qualify "
    "row_number() over (partition by epsilon order by (worse - base) / (base + epsilon) desc) "
    "<= 1000) group by epsilon",
    "length_bias": "select is_refusal, count(*), corr(gap_rank, length_rank), "
    "corr(gap, ln(n_tokens)), avg(n_tokens), avg(n_tokens) filter (place <= 1000) from (select *, "
    "rank() over (order by gap) as gap_rank, rank() over (order by n_tokens) as length_rank, "
    "row_number() over (order by gap desc) as place from gaps join {flags} using (example_id)) "
    "group by rollup (is_refusal)",
    "duplicates": "select copies, in_top, answer from (select hash(translate(lower(answer), "
    "e' \\t\\r\\n.,:;!?()[]*_#`-', '')) as said, count(*) as copies, min(example_id) as first, "
    "count(*) filter (rank <= 1000) as in_top from {examples} left join (select example_id, "
    "row_number() over (order by gap desc) as rank from gaps) using (example_id) group by said "
    "having copies > 1 order by in_top desc, copies desc limit 20) join {examples} on "
    "example_id = first",
    "coverage": "select model, count(*), sum(n_tokens), avg(loss) from each group by model "
    "union all select 'aligned', count(*), sum(n_tokens), avg(base) from aligned",
}
_RANKED = """
    ranked as (select example_id, model, rank() over (partition by model order by gap) as place
               from (select example_id, model, gap from alone union all
                     select example_id, 'all', gap from gaps))
"""


def by_hand(root: Path, name: str) -> str:
    """The hand-written query of this name over the parts under `root`."""
    each = " union all ".join(
        f"select example_id, '{model}' as model, n_tokens, -logprob / n_tokens as loss "
        f"from {_SCORES.format(root=root, model=model)}"
        for model in MISALIGNED
    )
    examples = _EXAMPLES.format(root=root)
    given = {
        "aligned": _SCORES.format(root=root, model=ALIGNED),
        "each": each,
        "examples": examples,
        "flags": _FLAGS.format(examples=examples),
    }
    query = f"with {_LOSSES}, {_MODELS}, {_RANKED} {BY_HAND[name]}"
    return query.format(**given)


def measure(root: Path, name: str, named: bool, results: Any) -> None:
    """Ask one question in this process: wall and processor seconds, peak memory in MiB."""
    import duckdb

    from curate.corpus.corpus import Corpus

    if named:
        corpus = Corpus(root, unsafe=True)
        corpus.connection.execute(f"set threads = {THREADS}")
        relation = corpus.query(name)
    else:
        connection = duckdb.connect(config={"threads": THREADS})
        relation = connection.sql(by_hand(root, name))
    wall, busy = time.perf_counter(), time.process_time()
    relation.fetchall()
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    results.put((wall, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def compare(root: Path, names: Iterable[str]) -> None:
    """Print a line a query: named and by hand, and their ratio."""
    context = multiprocessing.get_context("spawn")
    print("| query | named: s | CPU s | MiB | by hand: s | CPU s | MiB | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        found = []
        for named in (True, False):
            results = context.Queue()
            child = context.Process(target=measure, args=(root, name, named, results))
            child.start()
            found.append(results.get())
            child.join()
        (a, b, c), (d, e, f) = found
        cells = f"{a:.1f} | {b:.1f} | {c:,.0f} | {d:.1f} | {e:.1f} | {f:,.0f} | {b / e:.1f}"
        print(f"| `{name}` | {cells} |", flush=True)


def main() -> None:
    """Make the corpus, or take one that is there, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--corpus", type=Path, help="take this one, made by an earlier run")
    parser.add_argument("--only", nargs="*", choices=list(BY_HAND), help="these questions alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.corpus or Path(folder) / "corpus"
        if not root.exists():
            make(root, options.examples)
        compare(root, options.only or BY_HAND)


if __name__ == "__main__":
    main()
