"""How many tokens a run of `answer` would write, and how long it would take: `--dry-run`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from curate import backends
from curate.answering.speaking import Speaker
from curate.backends import base
from curate.chat.prompts import encode_prompts
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

SAMPLE = 64
"""Prompts that are tried: those with the lowest ids, which are hashes: a fair draw."""
TRIED = 64
"""Tokens that are written for each."""


@dataclass
class Estimate:
    """Tokens of prompts and answers, and seconds: None where the model's weights are not here."""

    prompt_tokens: int
    tokens: int
    seconds: float | None
    workers: int = 1


def lowest(tables: Iterable[pa.Table]) -> pa.Table | None:
    """A sample of the rows of these tables; None if there are none."""
    sample: pa.Table | None = None
    for table in tables:
        both = table if sample is None else pa.concat_tables([sample, table])
        sample = both.sort_by("example_id").slice(0, SAMPLE)
    return sample


def estimate(
    speaker: Speaker, sample: pa.Table, prompts: int, compute: base.Compute, progress: Progress
) -> Estimate:
    """Generate the first tokens of answers to a sample, and extrapolate.

    A later token is assumed to end an answer as often as one of these.
    """
    rows = sample.to_pylist()
    messages = [row["messages"] for row in rows]
    opened = encode_prompts(speaker.tokenizer, speaker.template, messages)
    usable: list[base.Prompt] = []
    for row, found in zip(rows, opened, strict=True):
        prompt = found if isinstance(found, str) else speaker.prompt(row, found.ids, 0)
        if not isinstance(prompt, str):
            usable.append(prompt)
    count = prompts * speaker.asked.samples * len(usable) / len(rows)
    before = round(count * sum(len(prompt.ids) for prompt in usable) / max(len(usable), 1))
    longest = sum(prompt.room for prompt in usable) / max(len(usable), 1)
    if not usable or not speaker.model.fingerprint:
        return Estimate(before, round(count * longest), None if usable else 0.0)
    progress.note(f"{speaker.model.name}: loading {speaker.model.reference} to time a sample")
    began = time.perf_counter()
    backend = backends.open_backend([speaker.model], compute, progress.note)
    try:
        _write(backend, speaker, usable, 4)  # the first pass is slower: memory, kernels
        loading, began = time.perf_counter() - began, time.perf_counter()
        written = _write(backend, speaker, usable, TRIED)
        seconds = time.perf_counter() - began
    finally:
        backend.close()
    tokens = sum(map(len, written))
    ended = sum(ids[-1] in speaker.sampling.ends for ids in written) / tokens if tokens else 0.0
    length = (1 - (1 - ended) ** longest) / ended if ended else longest
    total = round(count * length)
    workers = min(backends.workers(compute), -(-prompts // base.PROMPTS))
    took = loading + total * seconds / max(tokens, 1) / workers
    return Estimate(before, total, took, workers)


def _write(
    backend: base.Backend, speaker: Speaker, prompts: list[base.Prompt], most: int
) -> list[list[int]]:
    short = [base.Prompt(each.ids, min(each.room, most), each.seed) for each in prompts]
    found = []
    for _, ids in backend.generate(short, speaker.sampling):
        check_cancelled()
        if not isinstance(ids, str):
            found.append(ids)
    return found
