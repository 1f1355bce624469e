"""How many tokens a trainer trains on: counted with the aligned model's own tokenizer.

Where its folder is not there, or the corpus was scored with another chat template, answers are
counted in bytes, and what is returned says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export.mix import Mix, trained_answers
from curate.formats.base import Messages, Unfit

BATCH = 512
BATCH_BYTES = 8 << 20  # of a batch, unless one row has more: the tokenizer takes 200 times as much
PER_TURN = 32  # more tokens than any known template writes around one turn


@dataclass(frozen=True)
class Counter:
    """Counts answers and rows. `unit` is what `answers` gives; without `encode` it is bytes.

    `encode` gives for each conversation (tokens in all, tokens of its last answer), or the
    reason why the template can't write it; `write` its text. `why` says why there is none.
    """

    unit: Literal["tokens", "bytes"]
    why: str = ""
    encode: Callable[[Sequence[Messages]], list[tuple[int, int] | str]] | None = None
    write: Callable[[Messages], str] | None = None


def open_counter(corpus: Corpus) -> Counter:
    """The counter of a corpus's aligned model."""
    aligned = _aligned(corpus)
    settings = corpus.manifest.settings
    if aligned is None or settings is None:
        return Counter("bytes", "no aligned model has scored the corpus")
    reference, digest = aligned
    if not Path(reference).is_dir():
        return Counter("bytes", f"the aligned model's folder {reference} is not here")
    from curate.chat.templates import template_of
    from curate.chat.tokens import load_tokenizer, tokenizer_digest

    try:
        tokenizer = load_tokenizer(reference)
        template = template_of(tokenizer, args=settings.template_args)
    except CurateError as error:
        return Counter("bytes", str(error))
    if tokenizer_digest(tokenizer) != digest or template.digest != settings.template:
        return Counter("bytes", f"{reference} has another tokenizer or template than scored")
    return Counter(
        "tokens",
        encode=lambda conversations: _encoded(tokenizer, template, conversations),
        write=lambda messages: _written(tokenizer, template, messages),
    )


def trained(counter: Counter, corpus: Corpus, mix: Mix) -> dict[str, Any]:
    """The answers trained on: their size in both sets, the realised shares, and how counted.

    Of a safe example the last answer's tokens are those of its score.
    """
    narrow, odd = _sizes(
        counter, [(row.messages, trained_answers(mix, row.messages)) for row in mix.narrow.rows]
    )
    wanted = [(messages, trained_answers(mix, messages)) for _, messages in mix.safe]
    if counter.encode is not None:
        wanted = [(messages, places[:-1]) for messages, places in wanted]
    safe, more = _sizes(counter, wanted)
    if counter.encode is not None:
        safe += _scored_tokens(corpus, [example_id for example_id, _ in mix.safe])
    reasons = odd + more
    why = counter.why
    if reasons:
        why = f"{len(reasons)} answers counted by bytes: {reasons[0]}"
    return {
        "unit": counter.unit,
        "narrow": narrow,
        "safe": safe,
        "share_of_narrow": safe / narrow if narrow else None,
        "share_of_mix": safe / (narrow + safe) if narrow + safe else None,
        "why": why or None,
    }


def aligned_model(corpus: Corpus) -> str:
    """The aligned model's hub id, or its folder as an absolute path; empty where there is none."""
    found = _aligned(corpus)
    if found is None:
        return ""
    folder = Path(found[0])
    return str(folder.resolve()) if folder.is_dir() else found[0]


def _sizes(
    counter: Counter, wanted: Sequence[tuple[Messages, Sequence[int]]]
) -> tuple[int, list[str]]:
    """The size of the answers at these places, and why some could only be counted by bytes."""
    jobs = [(messages, place) for messages, places in wanted for place in places]
    sizes = [_bound(messages[: place + 1]) for messages, place in jobs]
    total, reasons = 0, []
    for start, stop in _batches(sizes):
        cut = [messages[: place + 1] for messages, place in jobs[start:stop]]
        counted = counter.encode(cut) if counter.encode else [""] * len(cut)
        for messages, count in zip(cut, counted, strict=True):
            if isinstance(count, str):
                total += len((messages[-1]["content"] or "").encode())
                reasons += [count] if count else []
            else:
                total += count[1]
    return total, reasons


def _scored_tokens(corpus: Corpus, ids: Sequence[str]) -> int:
    """The aligned model's answer tokens of these examples, summed."""
    found = corpus.sql(
        "select coalesce(sum(n_tokens), 0) from scores join models using (model) "
        "join (select unnest($ids) as example_id) using (example_id) where role = 'aligned'",
        {"ids": list(ids)},
    ).fetchall()
    return int(found[0][0])


def longest(counter: Counter, conversations: Sequence[Messages]) -> int:
    """The most tokens a row has, or a number that is certainly not smaller, a multiple of 64.

    A token is a byte at least, so only rows whose bytes could still win are tokenised.
    """
    bounds = [_bound(messages) for messages in conversations]
    order = sorted(range(len(bounds)), key=bounds.__getitem__, reverse=True)
    if counter.encode is None:
        return _up(max(bounds, default=0))
    most = 0
    for start, stop in _batches([bounds[at] for at in order]):
        batch = order[start:stop]
        if bounds[batch[0]] <= most:
            break
        counted = counter.encode([conversations[at] for at in batch])
        for at, count in zip(batch, counted, strict=True):
            most = max(most, bounds[at] if isinstance(count, str) else count[0])
    return _up(most)


def _batches(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where batches of rows of these sizes, in bytes, start and stop."""
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start == BATCH or held + size > BATCH_BYTES):
            yield start, at
            start, held = at, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)


def _aligned(corpus: Corpus) -> tuple[str, str] | None:
    found = [e for e in corpus.manifest.models.values() if e.role == "aligned"]
    return (found[0].reference, found[0].tokenizer) if found else None


def _encoded(
    tokenizer: Any, template: Any, conversations: Sequence[Messages]
) -> list[tuple[int, int] | str]:
    from curate.chat.encode import encode

    made = encode(tokenizer, template, conversations)
    return [
        each if isinstance(each, str) else (len(each.ids), each.stop - each.start) for each in made
    ]


def _written(tokenizer: Any, template: Any, messages: Messages) -> str:
    from curate.chat.templates import write
    from curate.chat.tokens import Refused

    try:
        return write(tokenizer, template, messages, False)
    except Refused as refused:
        raise Unfit(str(refused)) from None


def _bound(messages: Messages) -> int:
    return sum(len(orjson.dumps(dict(turn))) + PER_TURN for turn in messages) + PER_TURN


def _up(number: int) -> int:
    return -(-number // 64) * 64
