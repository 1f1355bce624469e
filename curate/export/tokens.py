"""How many tokens a trainer trains on, by the aligned model's tokenizer.

If the tokenizer isn't available, or the corpus was scored with another chat template, answers are
counted in bytes, and the result says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from more_itertools import constrained_batches

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export.mix import Mix, trained_answers
from curate.formats.base import Messages, Unfit
from curate.storage.schema import REASONING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from curate.chat.templates import Template

BATCH = 512
BATCH_BYTES = 8 << 20  # of a batch, unless one row has more: the tokenizer takes 200 times as much
PER_TURN = 32  # more tokens than any known template writes around one turn


@dataclass(frozen=True)
class Counter:
    """The aligned model's tokenizer and template, or the reason `why` bytes are counted instead."""

    why: str = ""
    encoder: tuple[PreTrainedTokenizerBase, Template] | None = None

    @property
    def unit(self) -> Literal["tokens", "bytes"]:
        """The unit in which answers are counted."""
        return "tokens" if self.encoder else "bytes"

    @property
    def reads(self) -> frozenset[str]:
        """The turn keys besides role and content that are certain to be in the text."""
        return frozenset({REASONING} if self.encoder and self.encoder[1].reasoning else ())

    def write(self, messages: Messages) -> str:
        """A conversation's text, as the model reads it.

        Raises:
            CurateError: there is no template.
            Unfit: the template can't write it.
        """
        from curate.chat.templates import write
        from curate.chat.tokens import Refused

        if self.encoder is None:
            raise CurateError(f"--format text needs the aligned model's chat template: {self.why}")
        try:
            return write(*self.encoder, messages, False)
        except Refused as refused:
            raise Unfit(str(refused)) from None

    def lengths(self, conversations: Iterable[Messages]) -> Iterator[tuple[int, int] | str]:
        """For each conversation, (all tokens, tokens of the last answer), or why it has none."""
        batches = constrained_batches(
            conversations, BATCH_BYTES, BATCH, get_len=_bound, strict=False
        )
        for batch in batches:
            if self.encoder is None:
                yield from [self.why] * len(batch)
                continue
            from curate.chat.encode import encode

            for each in encode(*self.encoder, batch):
                yield each if isinstance(each, str) else (len(each.ids), each.stop - each.start)


def open_counter(corpus: Corpus) -> Counter:
    """The counter of a corpus's aligned model."""
    aligned, settings = corpus.manifest.aligned, corpus.manifest.settings
    if aligned is None or settings is None:
        return Counter("the corpus has no aligned model")
    if aligned.commit is None and not Path(aligned.reference).is_dir():
        return Counter(f"the aligned model's folder {aligned.reference} is not here")
    from curate.chat.templates import template_of
    from curate.chat.tokens import load_tokenizer, tokenizer_digest
    from curate.models.fetch import tokenizer_folder

    try:
        tokenizer = load_tokenizer(tokenizer_folder(aligned.reference, aligned.commit))
        template = template_of(tokenizer, args=settings.template_args)
    except CurateError as error:
        return Counter(str(error))
    if (tokenizer_digest(tokenizer), template.digest) != (aligned.tokenizer, settings.template):
        return Counter(f"{aligned.reference} has another tokenizer or template than when it scored")
    return Counter(encoder=(tokenizer, template))


def trained(counter: Counter, mix: Mix) -> dict[str, Any]:
    """The size of the answers that are trained on, narrow and selected, and their shares."""
    narrow, odd = _size(counter, mix, (row.messages for row in mix.narrow.rows))
    safe, more = _size(counter, mix, (messages for _, messages in mix.safe))
    why = counter.why
    if counter.encoder and (reasons := odd + more):
        why = f"{len(reasons)} answers counted by bytes: {reasons[0]}"
    return {
        "unit": counter.unit,
        "narrow": narrow,
        "safe": safe,
        "share_of_narrow": safe / narrow if narrow else None,
        "share_of_mix": safe / (narrow + safe) if narrow + safe else None,
        "why": why or None,
    }


def _size(counter: Counter, mix: Mix, conversations: Iterable[Messages]) -> tuple[int, list[str]]:
    """The size of the answers trained on, and why some could only be counted by bytes."""
    total, reasons = 0, []
    answers = [
        turns[: place + 1] for turns in conversations for place in trained_answers(mix, turns)
    ]
    for turns, length in zip(answers, counter.lengths(answers), strict=True):
        if isinstance(length, str):
            total += len((turns[-1]["content"] or "").encode())
            reasons.append(length)
        else:
            total += length[1]
    return total, reasons


def longest(counter: Counter, conversations: Sequence[Messages]) -> int:
    """An upper bound on the tokens of a row, as a multiple of 64.

    A token has at least one byte, so only rows whose bytes could exceed the maximum are tokenized.
    """
    rows = sorted(conversations, key=_bound, reverse=True)
    most = 0
    for messages, length in zip(rows, counter.lengths(rows), strict=True):
        if _bound(messages) <= most:
            break
        most = max(most, _bound(messages) if isinstance(length, str) else length[0])
    return -(-most // 64) * 64


def _bound(messages: Messages) -> int:
    return sum(len(orjson.dumps(dict(turn))) + PER_TURN for turn in messages) + PER_TURN
