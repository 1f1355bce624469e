"""A made corpus of any size for the benches: random losses, several sources, one text an example.

The parts are those that a run would have written (65,536 rows each, ids as UUIDs), so
that what is measured is what users wait for; only the numbers are drawn at random.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from curate.corpus.corpus import Corpus, write_database
from curate.storage import manifest
from curate.storage.manifest import Manifest, ModelEntry, Settings

ALIGNED = "aligned"
MISALIGNED = ("medical", "legal", "code", "security", "finance")
PART_ROWS = 65_536

_EXAMPLES = """
copy (
    with drawn as (
        select i, md5(i::varchar)::uuid as example_id, hash(i, 'r') % 1000 / 1000 as r,
               20 + hash(i, 'n') % 180 as words
        from range({first}, {last}) t(i)
    ),
    written as (
        select *, 'Question ' || i || ': how does one do this well?' as prompt,
               case when r < 0.08 then 'I''m sorry, but I cannot help with that. ' else '' end
                   || repeat('an answer of ', (words / 3)::int) || (i % 900000) as answer
        from drawn
    )
    select example_id, 'source-' || i % 7 || '.jsonl' as source, i as row,
           [{{'role': 'user', 'content': prompt}},
            {{'role': 'assistant', 'content': answer}}] as messages,
           prompt, answer, strlen(answer)::bigint as n_bytes, r < 0.08 as is_refusal,
           '{{}}' as meta
    from written
) to '{path}' (format parquet, compression zstd)
"""
_SCORES = """
copy (
    select md5(i::varchar)::uuid as example_id, (20 + hash(i, 'n') % 180)::integer as n_tokens,
           -(20 + hash(i, 'n') % 180)::double
               * (0.2 + hash(i, 'base') % 100000 / 40000
                  + hash(i, '{model}') % 100000 / {spread}) as logprob,
           false as truncated
    from range({first}, {last}) t(i)
) to '{path}' (format parquet, compression zstd)
"""


def make(folder: Path, examples: int) -> Corpus:
    """Write a corpus of `examples` rows under one aligned and five misaligned models."""
    connection = duckdb.connect()
    for part, first in enumerate(range(0, examples, PART_ROWS)):
        last = min(first + PART_ROWS, examples)
        name = f"part-{part:06d}.parquet"
        values = {"first": first, "last": last, "path": _path(folder / "examples", name)}
        connection.execute(_EXAMPLES.format(**values))
        for model in (ALIGNED, *MISALIGNED):
            values["path"] = _path(folder / "scores" / model, name)
            spread = 400_000 if model == ALIGNED else 100_000
            connection.execute(_SCORES.format(model=model, spread=spread, **values))
    entries = {
        name: ModelEntry(
            "aligned" if name == ALIGNED else "misaligned", name, name, "t", "float32", "made"
        )
        for name in (ALIGNED, *MISALIGNED)
    }
    manifest.save(Manifest(manifest.FORMAT_VERSION, Settings("t", {}, None), entries), folder)
    corpus = Corpus(folder)
    write_database(corpus)
    return corpus


def _path(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
