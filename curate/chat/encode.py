"""Encode a conversation: messages in, token ids and the answer's span out.

The prompt is what the template writes for the messages before the answer, with its generation
prompt; the answer is what it adds after that for the whole conversation, end-of-turn tokens
included. The whole is tokenized once, as one text, and the answer's tokens are found in it by
their character offsets. If a token lies across the boundary, or the template changes the prompt or
the answer, the example is refused with the reason: a wrong span gives numbers that look right.

Pitfalls and their sources: trl issue 5213 and lm-eval pull request 4055 (the boundary), lm-eval
issue 3333 (double BOS). A template that has no generation prompt leaves the answer's header (such
as `<|im_start|>assistant`) to the model, so the header then counts as the answer's. Where the
generation prompt ends in a `<think>` block, what finished turns make of it is the prompt's: they
close it empty (Qwen3.5), drop it (DeepSeek R1), or go on with the answer's reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from curate.chat.templates import PROBE, REASONING, Message, Template, write
from curate.chat.tokens import Refused, Tokens, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile(r"(</?think>)")
_EMPTY = re.compile(r"\s*<think>\s*</think>\s*")
_OPENED = re.compile(r"(?:<think>\s*)?(?:</think>\s*)?")  # an opened block in a finished turn


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids, up to the answer's end; the answer's are `ids[start:stop]`.

    `truncated`: the answer was cut at its end, to keep `max_length`. `texts`: the answer's tokens
    as text, if they were asked for.
    """

    ids: list[int]
    start: int
    stop: int
    truncated: bool
    texts: list[str] | None = None


def encode(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    conversations: Sequence[Sequence[Message]],
    *,
    max_length: int | None = None,
    keep_texts: bool = False,
) -> list[Encoded | str]:
    """Token ids and the answer's span of each conversation, in order; its last turn is the answer.

    A string instead is the reason why that one can't be scored. `max_length` is in tokens, prompt
    and answer together: the answer is cut at its end. One call tokenizes them all.
    """
    results: list[Encoded | str] = [""] * len(conversations)
    texts: dict[int, tuple[str, int]] = {}
    frames: list[tuple[str, str]] = []
    for i, messages in enumerate(conversations):
        try:
            texts[i] = _write(tokenizer, template, messages, frames)
        except Refused as refused:
            results[i] = str(refused)
    batch = tokenize(tokenizer, [whole for whole, _ in texts.values()])
    for (i, (_, boundary)), tokens in zip(texts.items(), batch, strict=True):
        if isinstance(tokens, str):
            results[i] = tokens
            continue
        try:
            results[i] = _span(tokens, boundary, max_length, keep_texts)
        except Refused as refused:
            results[i] = str(refused)
    return results


def _write(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    messages: Sequence[Message],
    frames: list[tuple[str, str]],
) -> tuple[str, int]:
    """The conversation's text and where its answer begins; prompt and answer must be whole."""
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise Refused("the conversation has no prompt, or its last message is not the assistant's")
    *before, last = messages
    prompt = write(tokenizer, template, before, True)
    head, mark, rest = prompt.rpartition("<think>")
    opens = bool(mark) and rest.strip() in ("", "</think>")
    answer = last.get("content") or ""
    if opens:
        prompt, answer = head, answer[_start(_EMPTY, answer) :]
        last = {**last, "content": answer}
    if not answer.strip():
        raise Refused("the answer is empty")
    whole = write(tokenizer, template, [*before, last], False)
    if not whole.startswith(prompt):
        raise Refused(_changed_prompt(prompt, whole))
    turn = whole[len(prompt) :]
    if not _is_whole(turn, answer, frames):
        probed = write(tokenizer, template, [*before, {**last, "content": PROBE}], False)
        found = _frames(probed, prompt)
        if not _is_whole(turn, answer, found):
            raise Refused("the chat template drops or rewrites a part of the answer")
        if not last.get(REASONING):  # else they hold its text
            frames.extend(frame for frame in found if frame not in frames)
    return whole, len(prompt) + (_start(_OPENED, turn) if opens else 0)


def _start(block: re.Pattern[str], text: str) -> int:
    """Where a text goes on after the block that it may begin with."""
    found = block.match(text)
    return found.end() if found else 0


def _frames(probed: str, prompt: str) -> list[tuple[str, str]]:
    """What a template writes before and after an answer, learned from one with a probe for it.

    The second form has nothing before it: a template that adds a `<think>` block doesn't if the
    answer brings one.
    """
    lead, probe, tail = probed.removeprefix(prompt).partition(PROBE)
    return [(lead, tail), ("", tail)] if probe else []


def _is_whole(turn: str, answer: str, frames: Sequence[tuple[str, str]]) -> bool:
    """Whether a turn is the answer in one of the frames; blanks around it and marks may differ.

    Looking for the answer anywhere in the turn would find "im" in `<|im_end|>`.
    """
    return any(
        turn.startswith(lead)
        and turn.endswith(tail)
        and _pieces(turn[len(lead) : len(turn) - len(tail)]) == _pieces(answer)
        for lead, tail in frames
    )


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in _MARK.split(text)]


def _changed_prompt(prompt: str, whole: str) -> str:
    pairs = zip(prompt, whole, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return (
        f"the chat template's prompt continues with {prompt[same : same + 30]!r} before the answer "
        "is there and not after, so the answer's place is unclear; give another with "
        "--chat-template"
    )


def _span(tokens: Tokens, boundary: int, max_length: int | None, keep_texts: bool) -> Encoded | str:
    """Find the answer's tokens, and cut them to the length."""
    start, stop = tokens.split(boundary), len(tokens.ids)
    if start == 0:
        return "the prompt has no tokens, so nothing predicts the answer's first"
    if start >= stop:
        return "the answer has no tokens"
    if max_length is not None and start >= max_length:
        return f"prompt of {start} tokens leaves no room for an answer in max_length {max_length}"
    kept = stop if max_length is None else min(stop, max_length)
    texts = tokens.texts(start, kept, boundary) if keep_texts else None
    return Encoded(tokens.ids[:kept], start, kept, kept < stop, texts)
