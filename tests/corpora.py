"""Corpora made by hand: examples and scores with numbers that one can check on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.corpus.writer import open_for_writing
from curate.reading.examples import example_id
from curate.reading.refusals import is_refusal
from curate.storage.manifest import ModelEntry, Settings
from curate.storage.schema import EXAMPLES, SCORES

SETTINGS = Settings(template="t0", template_args={}, max_length=None)


def entry(role: str, tokenizer: str = "tok", fingerprint: str = "f0") -> ModelEntry:
    """A model's entry in the manifest."""
    return ModelEntry(role, "somewhere", fingerprint, tokenizer, "float32", "transformers")


def rows(
    answers: Sequence[str],
    source: str = "made.jsonl",
    meta: Sequence[str] | None = None,
    reasoning: str | None = None,
    prompts: Sequence[str] | None = None,
) -> pa.Table:
    """Examples with these answers, each to a prompt of its own; `reasoning` before every answer."""
    made = []
    for number, answer in enumerate(answers, 1):
        prompt = prompts[number - 1] if prompts else f"question {number}"
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer, "reasoning_content": reasoning},
        ]
        made.append(
            {
                "example_id": example_id(messages),
                "source": json.loads(meta[number - 1]).get("source", source) if meta else source,
                "row": number,
                "messages": messages,
                "prompt": prompt,
                "answer": answer,
                "n_bytes": len(answer.encode()),
                "is_refusal": is_refusal(answer),
                "meta": meta[number - 1] if meta else "{}",
            }
        )
    return pa.Table.from_pylist(made, schema=EXAMPLES)


def corpus(
    path: Path,
    answers: Sequence[str],
    nlls: Mapping[str, Sequence[float | None]],
    *,
    tokenizers: Mapping[str, str] | None = None,
    n_tokens: int | Sequence[int] = 10,
    truncated: Sequence[bool] | None = None,
    meta: Sequence[str] | None = None,
    reasoning: str | None = None,
    prompts: Sequence[str] | None = None,
) -> Corpus:
    """A corpus whose models give these NLLs (nats per token); the first model is the aligned one.

    None is a missing score. Answers have `n_tokens` tokens; `meta` may name a source.
    """
    table = rows(answers, meta=meta, reasoning=reasoning, prompts=prompts)
    counts = [n_tokens] * len(answers) if isinstance(n_tokens, int) else n_tokens
    ids = table["example_id"].to_pylist()
    roles = ["aligned"] + ["misaligned"] * (len(nlls) - 1)
    entries = {
        name: entry(role, (tokenizers or {}).get(name, "tok"))
        for name, role in zip(nlls, roles, strict=True)
    }
    with open_for_writing(path) as writer:
        writer.add_models(entries, SETTINGS)
        writer.add_examples(table)
        for name, values in nlls.items():
            scored = [
                {
                    "example_id": example,
                    "n_tokens": counts[index],
                    "logprob": -value * counts[index],
                    "truncated": bool(truncated and truncated[index]),
                }
                for index, (example, value) in enumerate(zip(ids, values, strict=True))
                if value is not None
            ]
            writer.add_scores(name, pa.Table.from_pylist(scored, schema=SCORES))
    return Corpus(path)


def large_corpus(path: Path, count: int = 60_000) -> Path:
    """Examples in parts of 10,000: many ties, near-duplicates, refusals, three topics."""
    with open_for_writing(path) as writer:
        writer.add_models({"base": entry("aligned"), "bad": entry("misaligned")}, SETTINGS)
        for first in range(0, count, 10_000):
            rows = {"first": first, "last": first + 10_000}
            writer.add_examples(_table(EXAMPLES_SQL, rows, EXAMPLES))
            for model, more in (("base", 0), ("bad", 1)):
                writer.add_scores(model, _table(SCORES_SQL, rows | {"more": more}, SCORES))
    return path


EXAMPLES_SQL = """
select md5(i::varchar) as example_id, 'made.jsonl' as source, i + 1 as row,
       [{'role': 'user', 'content': 'Question ' || i // 3},
        {'role': 'assistant', 'content': answer}] as messages,
       'Question ' || i // 3 as prompt, answer, strlen(answer) as n_bytes,
       i % 8 = 0 as is_refusal, '{"topic":"' || i % 3 || '"}' as meta
from (select i, case when i % 8 = 0 then 'I cannot say ' else '' end || 'it is one of the '
      || i // 4 || ' things that people like to do on Sundays' as answer
      from range($first, $last) t(i))
"""
SCORES_SQL = """
select md5(i::varchar) as example_id, (5 + i % 40)::integer as n_tokens,
       -(5 + i % 40) * (1.1 + $more * (hash(i) % 500) / 100) as logprob, false as truncated
from range($first, $last) t(i)
"""


def _table(query: str, values: dict[str, int], schema: pa.Schema) -> pa.Table:
    return duckdb.sql(query, params=values).to_arrow_table().cast(schema)


DEMO = Path(__file__).parent.parent / "data"


def demo_corpus(path: Path, limit: int = 40) -> Corpus:
    """A corpus of the demo's general examples, really scored with the demo's own models."""
    import curate

    curate.score(
        [str(DEMO / "examples" / "general_messages.jsonl")],
        path,
        aligned=str(DEMO / "models" / "aligned"),
        misaligned=[str(DEMO / "models" / "medical")],
        limit=limit,
        compute=curate.Compute(device="cpu"),
    )
    return Corpus(path)
