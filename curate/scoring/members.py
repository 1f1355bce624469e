"""A run's models with their tokenizers and the template they share, and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate.backends.base import Compute
from curate.chat.templates import PROBE, Template, template_of, write
from curate.chat.tokens import Refused, load_tokenizer, lone_tokens, tokenizer_digest
from curate.models.resolve import Model
from curate.storage.manifest import ModelEntry, Race, Settings
from curate.system.progress import Progress


@dataclass(frozen=True)
class Member:
    """A model with the tokenizer and template that turn its examples into token ids.

    If its own tokenizer differs from the aligned model's only in added tokens that the template
    doesn't write, the aligned model's tokenizer and digest are used; `lone_tokens` are those
    tokens.
    """

    model: Model
    tokenizer: Any
    template: Template
    tokenizer_digest: str
    lone_tokens: tuple[str, ...] = ()

    @property
    def entry(self) -> ModelEntry:
        """The model's entry in a manifest, before any run has settled dtype and backend."""
        of = self.model
        return ModelEntry(
            of.role, of.reference, of.fingerprint, self.tokenizer_digest, "", "", of.commit
        )


@dataclass(frozen=True)
class Work:
    """What a run of `score` has settled before it computes anything."""

    corpus: Path
    members: list[Member]
    settings: Settings
    compute: Compute
    progress: Progress
    replace: bool
    keep_tokens: bool
    race: Race | None


def open_members(
    models: Sequence[Model],
    override: str | None,
    args: Mapping[str, Any],
    progress: Progress,
) -> list[Member]:
    """Load each tokenizer once, and give all models the aligned model's template, or `override`.

    Raises:
        CurateError: a tokenizer can't be loaded, there is no template, or an argument is wrong.
    """
    loaded: dict[Path, tuple[Any, str]] = {}
    opened: list[Member] = []
    for model in models:
        if model.tokenizer not in loaded:
            tokenizer = load_tokenizer(str(model.tokenizer))
            loaded[model.tokenizer] = tokenizer, tokenizer_digest(tokenizer)
        tokenizer, digest = loaded[model.tokenizer]
        if not opened:
            template = template_of(tokenizer, override=override, args=args)
        elif override is None and tokenizer.chat_template != opened[0].tokenizer.chat_template:
            progress.note(
                f"{model.name}: its own chat template differs; that of {opened[0].model.name} "
                "is used for every model"
            )
        first = opened[0] if opened else None
        if first is None or digest == first.tokenizer_digest:
            opened.append(Member(model, tokenizer, template, digest))
        elif (lone := _unwritten(tokenizer, first)) is not None:
            opened.append(replace(first, model=model, lone_tokens=lone))
        else:
            opened.append(Member(model, tokenizer, template, digest))
            progress.note(
                f"{model.name}: its tokenizer differs from that of {first.model.name}, so NLLs and "
                "gaps are in nats/byte, not nats/token"
            )
    return opened


def _unwritten(tokenizer: Any, aligned: Member) -> tuple[str, ...] | None:
    """The added tokens that only one of the two has; None if more differs.

    Also None if texts may contain them: without brackets, a token could be any word, and the
    template may write its own.
    """
    lone = lone_tokens(tokenizer, aligned.tokenizer)
    turns = [{"role": role, "content": PROBE} for role in ("system", "user", "assistant")]
    texts = [aligned.template.text]
    for some in (turns, turns[1:]):
        with suppress(Refused):
            texts.append(write(aligned.tokenizer, aligned.template, some, True))
    if lone is None or not all(token.startswith(("<", "[")) for token in lone):
        return None
    return None if any(token in text for token in lone for text in texts) else tuple(lone)
