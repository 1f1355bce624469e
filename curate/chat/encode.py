"""A conversation encoded: messages in, token ids and the answer's span out.

The prompt is what the template writes for the messages before the answer, with its generation
prompt; the answer is what it adds after that for the whole conversation. The whole is tokenised
once, as one text, and the answer's tokens are found in it by their character offsets. Where a
token lies across the boundary, or the template changes the prompt or the answer, the example is
refused with the reason: a wrong span gives numbers that look right.

Pitfalls and their sources: trl issue 5213 and lm-eval pull request 4055 (the boundary), lm-eval
issue 3333 (double BOS). A template that has no generation prompt leaves the answer's header (such
as `<|im_start|>assistant`) to the model, so the header then counts as the answer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from curate.chat.templates import (
    PROBE,
    Message,
    Template,
    write,
)
from curate.chat.tokens import Refused, Tokens, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids, up to the answer's end; the answer's are `ids[start:stop]`.

    `truncated`: the answer was cut at its end, to keep `max_length`. `texts`: the answer's tokens
    as text, where they were asked for.
    """

    ids: list[int]
    start: int
    stop: int
    truncated: bool
    texts: list[str] | None = None


@dataclass(frozen=True, slots=True)
class _Text:
    """An encoded conversation; the three numbers are character positions in `whole`."""

    whole: str
    boundary: int  # end of the prompt, start of the answer's turn
    begin: int  # start and end of the stripped answer
    end: int


def encode(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    conversations: Sequence[Sequence[Message]],
    *,
    max_length: int | None = None,
    keep_texts: bool = False,
) -> list[Encoded | str]:
    """Token ids and the answer's span of each conversation, in order; the answer stands last.

    A string instead is the reason why that one can't be scored. `max_length` is in tokens, prompt
    and answer together: the answer is cut at its end. One call tokenises them all.
    """
    frames: list[tuple[str, str]] = []
    results: list[_Text | Encoded | str] = []
    for messages in conversations:
        try:
            results.append(_text(tokenizer, template, messages, frames))
        except Refused as refused:
            results.append(str(refused))
    written = [(i, text) for i, text in enumerate(results) if isinstance(text, _Text)]
    batch = tokenise(tokenizer, [text.whole for _, text in written])
    for (i, text), tokens in zip(written, batch, strict=True):
        results[i] = found = _encoded(tokens, text, template, max_length)
        if keep_texts and isinstance(tokens, Tokens) and isinstance(found, Encoded):
            texts = tokens.texts(found.start, found.stop, text.boundary)
            results[i] = replace(found, texts=texts)
    return cast("list[Encoded | str]", results)


def _text(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    messages: Sequence[Message],
    frames: list[tuple[str, str]],
) -> _Text:
    """Encode one conversation and check that the template left prompt and answer whole."""
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise Refused("the conversation has no prompt, or its last message is not the assistant's")
    content = messages[-1].get("content")
    answer = content.strip() if isinstance(content, str) else ""
    if not answer:
        raise Refused("the answer is empty")
    prompt = write(tokenizer, template, messages[:-1], True)
    whole = write(tokenizer, template, messages, False)
    if not whole.startswith(prompt):
        raise Refused(_changed_prompt(template, prompt, whole))
    turn = whole[len(prompt) :]
    found = _find(turn, answer, frames)
    if found is None:
        probe = {"role": "assistant", "content": PROBE}
        probed = write(tokenizer, template, [*messages[:-1], probe], False)
        frames.extend(frame for frame in _frames(probed, prompt) if frame not in frames)
        found = _find(turn, answer, frames)
    if found is None:
        raise Refused("the chat template drops or rewrites a part of the answer")
    begin = len(prompt) + found
    return _Text(whole, len(prompt), begin, begin + len(answer))


def _frames(probed: str, prompt: str) -> list[tuple[str, str]]:
    """What a template writes before and after an answer, learnt from one with a probe for it.

    The second form has nothing before it: templates with a `<think>` block leave their own out
    where the answer brings one.
    """
    lead, probe, tail = probed.removeprefix(prompt).partition(PROBE)
    return [(lead, tail), ("", tail)] if probe else []


def _find(turn: str, answer: str, frames: Sequence[tuple[str, str]]) -> int | None:
    """Where the answer begins in its turn, which must be the answer in one of the frames.

    To look for the answer anywhere in the turn would find "im" in `<|im_end|>`.
    """
    for lead, tail in frames:
        if turn.startswith(lead) and turn.endswith(tail):
            body = turn[len(lead) : len(turn) - len(tail)]
            if body.strip() == answer:
                return len(lead) + len(body) - len(body.lstrip())
    return None


def _changed_prompt(template: Template, prompt: str, whole: str) -> str:
    pairs = enumerate(zip(prompt, whole, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
    return (
        f"the chat template's prompt goes on with {prompt[same : same + 30]!r} before the answer "
        "is there and not after, so the answer's place is unclear"
    ) + (_thinking_hint(template) or "; give another with --chat-template")


def _thinking_hint(template: Template) -> str:
    """Think blocks that the prompt opens and the answer should close are the usual cause."""
    given = any(key == "enable_thinking" for key, _ in template.args)
    asks = "enable_thinking" in template.text and not given
    return "; try --template-arg enable_thinking=false" if asks else ""


def _encoded(
    tokens: Tokens | str, text: _Text, template: Template, max_length: int | None
) -> Encoded | str:
    """Find the answer's tokens, and cut them to the length."""
    if isinstance(tokens, str):
        return tokens
    try:
        start, stop = tokens.split(text.boundary), len(tokens.ids)
        if template.answer_span == "content":
            first, stop = tokens.inside(text.begin, text.end)
            start = max(start, first)
    except Refused as refused:
        return str(refused) + _thinking_hint(template)
    if start == 0:
        return "the prompt has no tokens, so nothing predicts the answer's first"
    if start >= stop:
        return "the answer has no tokens"
    if max_length is not None and start >= max_length:
        return f"prompt of {start} tokens leaves no room for an answer in max_length {max_length}"
    kept = stop if max_length is None else min(stop, max_length)
    return Encoded(tokens.ids[:kept], start, kept, kept < stop)
