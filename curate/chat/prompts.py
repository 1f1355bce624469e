"""Prompts for new answers: the conversation before the answer as token ids, and what ends one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curate.chat.templates import PROBE, Message, Template, write
from curate.chat.tokens import Refused, tokenize
from curate.errors import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THINK = "<think>"


class Opened(NamedTuple):
    """A prompt's token ids; `begin` is what its end has already written of the answer."""

    ids: list[int]
    begin: str


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    prompts: Sequence[Sequence[Message]],
) -> list[Opened | str]:
    """Each prompt's ids, with the template's generation prompt; a string is why it has none."""
    found: list[Opened | str] = [""] * len(prompts)
    texts: dict[int, str] = {}
    for at, messages in enumerate(prompts):
        try:
            texts[at] = write(tokenizer, template, messages, True)
        except Refused as refused:
            found[at] = str(refused)
    for (at, text), tokens in zip(
        texts.items(), tokenize(tokenizer, [*texts.values()]), strict=True
    ):
        if isinstance(tokens, str):
            found[at] = tokens
        elif not tokens.ids:
            found[at] = "the prompt has no tokens"
        else:
            opens = text.rstrip().endswith(_THINK)
            found[at] = Opened(tokens.ids, f"{_THINK}\n" if opens else "")
    return found


def ends_of(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template
) -> tuple[int, ...]:
    """The ids that end an answer.

    They are the `eos_token_id` of the model's generation_config.json (or its config.json, as
    transformers reads them), and the special token that the template writes behind an answer:
    models that were trained to chat often end with one that those files don't name.

    Raises CurateError where there is none: no answer would ever end.
    """
    named: list[int] = []
    for name in ("generation_config.json", "config.json"):
        try:
            ids = json.loads((folder / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if ids is not None:
            named = ids if isinstance(ids, list) else [ids]
            break
    ends = {one for one in named if type(one) is int}
    ends |= {one for one in [_turn_end(tokenizer, template)] if one is not None}
    if not ends:
        raise CurateError(
            f"{folder}: no token ends an answer: neither generation_config.json nor the chat "
            "template has one; add its eos_token_id to generation_config.json"
        )
    return tuple(sorted(ends))


def _turn_end(tokenizer: PreTrainedTokenizerBase, template: Template) -> int | None:
    """The special token that the template writes right behind an answer."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    try:
        text = write(tokenizer, template, turns, False)
    except Refused:
        return None
    (tail,) = tokenize(tokenizer, [text.rpartition(PROBE)[2].lstrip()])
    if isinstance(tail, str) or not tail.ids:
        return None
    return tail.ids[0] if tail.ids[0] in tokenizer.added_tokens_decoder else None
