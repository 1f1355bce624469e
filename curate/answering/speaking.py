"""The model at work: prompts in, all samples of each out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from curate.answering.record import Record
from curate.answering.rows import Pending
from curate.backends import base
from curate.chat.prompts import encode_prompts, ends_of
from curate.chat.templates import Template, template_of
from curate.chat.tokens import load_tokenizer, tokenizer_digest
from curate.errors import CurateError
from curate.models.resolve import Model, check_length
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

WINDOW = 256
"""Prompts that are tokenized at a time."""
REFUSED = 20
"""After this many refusals in a row, the model or the server is at fault, not the prompts."""


class Speaker(NamedTuple):
    """The model with what turns its prompts into ids, and how its answers are drawn."""

    model: Model
    tokenizer: Any
    template: Template
    asked: Record
    sampling: base.Sampling

    def prompt(self, row: Mapping[str, Any], ids: list[int], sample: int) -> base.Prompt | str:
        """The request to a backend, or the reason why the prompt can't be answered."""
        room = self.asked.max_tokens
        if self.asked.max_length is not None:
            room = min(room, self.asked.max_length - len(ids))
        if room < 1:
            return f"no room for an answer after the prompt (--max-length {self.asked.max_length})"
        text = f"{self.asked.seed}-{row['example_id']}-{sample}".encode()
        seed = int.from_bytes(blake2b(text, digest_size=8).digest()) >> 1  # vLLM's have 63 bits
        return base.Prompt(ids, room, seed)


def open_speaker(
    model: Model,
    chat_template: str | None,
    template_args: Mapping[str, Any],
    *,
    max_length: int | None,
    max_tokens: int,
    temperature: float,
    samples: int,
    seed: int,
) -> Speaker:
    """Load a model's tokenizer and chat template, and settle how its answers are drawn."""
    tokenizer = load_tokenizer(str(model.tokenizer))
    template = template_of(tokenizer, override=chat_template, args=template_args)
    ends = ends_of(model.path, tokenizer, template)
    asked = Record(
        format_version=1,
        model=model.name,
        reference=model.reference,
        commit=model.commit,
        fingerprint=model.fingerprint,
        tokenizer=tokenizer_digest(tokenizer),
        template=template.digest,
        template_args=dict(template_args),
        max_length=check_length([model], max_length),
        max_tokens=max_tokens,
        temperature=temperature,
        samples=samples,
        seed=seed,
        ends=list(ends),
    )
    return Speaker(model, tokenizer, template, asked, base.Sampling(ends, temperature))


def stored(waiting: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    """The prompts of some parts, a window at a time."""
    for part in waiting:
        table = pq.read_table(part)
        for start in range(0, table.num_rows, WINDOW):
            yield table.slice(start, WINDOW).to_pylist()


def answers(
    speaker: Speaker,
    windows: Iterable[list[dict[str, Any]]],
    backend: base.Backend,
    refused: Counter[str],
    progress: Progress,
) -> Iterator[Pending]:
    """Answer prompts; yield each when all its samples are there, and count refused ones by reason.

    Raises:
        CurateError: the backend fails, or refuses `REFUSED` prompts in a row.
    """
    under_way: dict[int, tuple[Pending, int]] = {}

    def refuse(reason: str) -> None:
        refused[reason] += 1
        progress.advance(1)

    def prompts() -> Iterator[base.Prompt]:
        number = 0
        for rows in windows:
            messages = [row["messages"] for row in rows]
            opened = encode_prompts(speaker.tokenizer, speaker.template, messages)
            for row, found in zip(rows, opened, strict=True):
                if isinstance(found, str):
                    refuse(found)
                    continue
                pending = Pending(row, found.begin)
                for sample in range(speaker.asked.samples):
                    prompt = speaker.prompt(row, found.ids, sample)
                    if isinstance(prompt, str):
                        refuse(prompt)
                        break
                    under_way[number] = pending, sample
                    number += 1
                    yield prompt

    in_a_row = 0
    generated = base.generate(backend, prompts(), speaker.sampling, progress.workers)
    with closing(generated) as written:  # type: ignore[type-var]
        for number, ids in written:
            check_cancelled()
            pending, sample = under_way.pop(number)
            if isinstance(ids, str):
                if pending.refused:
                    continue
                refuse(ids)
                pending.refused = True
                in_a_row += 1
                if in_a_row == REFUSED:
                    raise CurateError(f"{speaker.model.name}: {REFUSED} prompts in a row: {ids}")
                continue
            in_a_row = 0
            pending.samples[sample] = ids
            whole = len(pending.samples) == speaker.asked.samples
            progress.advance(int(whole), len(ids))
            if whole:
                yield pending
