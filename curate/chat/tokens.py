"""Tokenizers: loading, comparing, and mapping positions in the text to tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 4 << 20
"""The most characters of a text, with its template, to tokenize: each takes about 200 bytes of
memory and 1.7 µs, in code that can't be interrupted."""

_NO_EXTRAS = {
    "add_special_tokens": False,  # the template has written them: a second BOS changes every NLL
    "split_special_tokens": False,
    "return_attention_mask": False,
    "return_token_type_ids": False,
    "verbose": False,
}


class Refused(Exception):  # noqa: N818 - a refusal is no error
    """This conversation can't be scored; the message is the reason shown to users."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters, for a one-line reason."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a local folder. Code in a model's folder is never run.

    Raises CurateError if no tokenizer can be loaded.
    """
    from transformers import AutoTokenizer

    if not Path(path).is_dir():
        raise CurateError(f"{path}: no such folder. Give the folder of a model with its tokenizer.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        ids = tokenizer("a b", add_special_tokens=False)["input_ids"]
    except Exception as error:  # many libraries read these files, each with its own exceptions
        raise CurateError(
            f"{path}: can't load a tokenizer ({first_line(error)}). "
            "Copy the model's tokenizer files into the folder."
        ) from error
    if not ids or set(ids) == {tokenizer.unk_token_id}:
        raise CurateError(f"{path}: the tokenizer is empty. Copy the model's tokenizer files here.")
    return tokenizer


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (64 hex digits), equal if two tokenizers turn every text into the same ids.

    Models are comparable per token only if their digests are equal. Settings that affect only
    decoding, padding, truncation or special tokens around the text are left out.
    """
    return hashlib.sha256(json.dumps(_state(tokenizer), sort_keys=True).encode()).hexdigest()


def lone_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> list[str] | None:
    """The added tokens that only one of two tokenizers has; None if they differ in other ways.

    Both turn every text without these tokens into the same ids.
    """
    states = [_state(one), _state(other)]
    if not all(isinstance(state, dict) for state in states):
        return None
    here, there = (state.pop("added_tokens") or [] for state in states)
    lone = {token["content"] for token in here + there if token not in here or token not in there}
    return sorted(lone) if states[0] == states[1] else None


def _state(tokenizer: PreTrainedTokenizerBase) -> Any:
    """What determines a tokenizer's ids: the file of a fast one, the vocabulary of a slow one."""
    state: Any
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        for key in ("version", "truncation", "padding", "post_processor", "decoder"):
            state.pop(key, None)
        for token in state.get("added_tokens") or []:
            token.pop("special", None)
    else:
        state = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    return state


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized text. `encoding` knows the tokens' characters; slow tokenizers have none."""

    tokenizer: PreTrainedTokenizerBase
    text: str
    ids: list[int]
    encoding: Any

    def split(self, at: int) -> int:
        """How many tokens are before the character position `at`.

        Raises Refused if a token crosses it. Offsets that meet at this position are sufficient
        proof. Without them (slow tokenizers, spaces trimmed off the offsets, special tokens that
        swallow the whitespace after them), the text before must give exactly the first ids.
        """
        boundary = self._meeting(at)
        if boundary is not None:
            return boundary
        head = _ids(self.tokenizer, self.text[:at])
        if self.ids[: len(head)] == head:
            return len(head)
        raise Refused(f"a token{self._shown(at)} crosses the boundary of prompt and answer")

    def texts(self, start: int, stop: int, begin: int) -> list[str]:
        """The text of each of the tokens [start, stop), from the character `begin`.

        Joined, they are the text itself: whitespace that offsets leave out goes with the next
        token, and a character of several tokens with the first of them.
        """
        if self.encoding is None:
            return [str(self.tokenizer.decode([number])) for number in self.ids[start:stop]]
        offsets = self.encoding.offsets
        at = max(begin, offsets[start - 1][1] if start else 0)
        pieces = []
        for _, right in offsets[start:stop]:
            pieces.append(self.text[at : max(at, right)])
            at = max(at, right)
        return pieces

    def _shown(self, at: int) -> str:
        index = self.encoding.char_to_token(at) if self.encoding is not None else None
        left, right = self.encoding.token_to_chars(index) if index else (0, 0)
        return f" ({self.text[left:right]!r})" if left < at < right else ""

    def _meeting(self, at: int) -> int | None:
        """The token that begins exactly at `at`, right where the one before it ends."""
        index = self.encoding.char_to_token(at) if self.encoding is not None else None
        if not index:
            return None
        before, here = (self.encoding.token_to_chars(i) for i in (index - 1, index))
        if not before or not here or before[0] == before[1]:
            return None
        return int(index) if before[1] == at == here[0] else None


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens | str]:
    """Tokenize texts in one call, without adding special tokens.

    A string instead says that a text is too long.
    """
    short = [text for text in texts if len(text) <= LONGEST]
    found = iter(_tokenized(tokenizer, short) if short else ())
    too_long = f"characters with the chat template, and {LONGEST:,} is the most"
    return [next(found) if len(text) <= LONGEST else f"{len(text):,} {too_long}" for text in texts]


def _tokenized(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Iterator[Tokens]:
    batch = tokenizer(texts, **_NO_EXTRAS)
    encodings: Sequence[Any] = batch.encodings or [None] * len(texts)
    for text, ids, encoding in zip(texts, batch["input_ids"], encodings, strict=True):
        yield Tokens(tokenizer, text, ids, encoding)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, **_NO_EXTRAS)["input_ids"])
