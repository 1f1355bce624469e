"""The chat template, its variables, and what it writes for given messages."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from curate.chat.tokens import Refused, first_line
from curate.errors import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]

# Llama 3.x's own default date: templates always get this as today's date.
PINNED_DATE = "26 Jul 2024"
_PINNED = {
    "%-d": "26", "%d": "26", "%e": "26", "%-m": "7", "%m": "07", "%b": "Jul", "%h": "Jul",
    "%B": "July", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday", "%j": "208",
    "%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24", "%X": "00:00:00", "%T": "00:00:00",
    "%R": "00:00", "%-H": "0", "%H": "00", "%-I": "12", "%I": "12", "%M": "00", "%S": "00",
    "%p": "AM", "%Z": "", "%z": "", "%c": "Fri Jul 26 00:00:00 2024",
}  # fmt: skip
# transformers turns functions among the template's variables into placeholders, so the pinned
# clock is a macro in front of the template. It shadows the sandbox's own strftime_now.
_CLOCK = "".join(f"|replace({directive!r},{text!r})" for directive, text in _PINNED.items())
_CLOCK = "{% macro strftime_now(format) %}{{ format" + _CLOCK + " }}{% endmacro %}\n"
PROBE = "curate-probe-7f3a"  # stands for a message's text, to see what a template does with it
REASONING = "reasoning_content"  # a turn's key, as conversations come; templates read one of these:
REASONING_KEYS = (REASONING, "reasoning", "thinking")


@dataclass(frozen=True)
class Template:
    """A chat template with everything that affects what it writes.

    `args` are sorted pairs of a variable's name and its value as JSON. They include the special
    tokens that the text refers to, so models with the same tokenizer but another `eos_token` in
    their configuration get the same text. `parts`: contents are given as lists of
    `{"type": "text", "text": ...}`, the only form that some vision models' templates read.
    `reasoning`: the turn key from which the template writes an answer's reasoning, if any.
    """

    text: str
    args: tuple[tuple[str, str], ...] = ()
    parts: bool = False
    reasoning: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of text, arguments, `parts` and the pinned date."""
        whole = json.dumps([self.text, self.args, self.parts, PINNED_DATE])
        return hashlib.sha256(whole.encode()).hexdigest()

    @cached_property
    def _call(self) -> dict[str, Any]:
        clock = _CLOCK if "strftime_now" in self.text else ""
        values = {key: json.loads(value) for key, value in self.args}
        values = {"date_string": PINNED_DATE, **values}
        return {**values, "chat_template": clock + self.text, "tokenize": False}


def template_of(
    tokenizer: PreTrainedTokenizerBase,
    *,
    override: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> Template:
    """The template to score with: `override` (a template's text), else the tokenizer's own.

    Of several named templates, the one called "default" is used. Raises CurateError if there is
    no template, its syntax is broken, or an argument is invalid.
    """
    from jinja2 import TemplateSyntaxError

    where = tokenizer.name_or_path if override is None else "--chat-template"
    text = override if override is not None else _own_template(tokenizer)
    named = {
        key: str(token)
        for key, token in tokenizer.special_tokens_map.items()
        if key.endswith("_token") and key in text
    }
    reserved = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"}
    for key in args or {}:
        if key in reserved or not key.isidentifier():
            raise CurateError(f"--template-arg {key}: not a valid name for a template variable")
    try:
        values = {**named, **(args or {})}
        pairs = tuple(sorted((k, json.dumps(v, allow_nan=False)) for k, v in values.items()))
    except (TypeError, ValueError) as error:
        raise CurateError(f"--template-arg: a value is not JSON ({error})") from error
    try:
        return _reasoning(tokenizer, _fitted(tokenizer, Template(text, pairs)))
    except TemplateSyntaxError as error:
        line = error.lineno - ("strftime_now" in text)
        raise CurateError(f"{where}: the chat template's line {line}: {error.message}") from error


def parse_args(pairs: Sequence[str], option: str = "--template-arg") -> dict[str, Any]:
    """`key=value` strings as variables; values are JSON, Python's True, False and None, or text.

    Raises CurateError for one without a key.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise CurateError(f"{option} {pair}: give KEY=VALUE")
        word = {"True": "true", "False": "false", "None": "null"}.get(value, value)
        try:
            values[key] = json.loads(word)
        except (ValueError, RecursionError):
            values[key] = value
    return values


def write(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    messages: Sequence[Message],
    generation_prompt: bool,
) -> str:
    """The template's text for the messages, rendered in the sandbox of transformers.

    Raises Refused with the template's message if it fails.
    """
    plain = [_plain(template, message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            plain, add_generation_prompt=generation_prompt, **template._call
        )
    except Exception as error:  # a template can raise anything, and harms only its conversation
        raise Refused(f"the chat template fails: {first_line(error)}") from error
    return str(text)


def _plain(template: Template, message: Message) -> dict[str, Any]:
    """The message without empty keys, because some templates print every key."""
    plain: dict[str, Any] = {key: value for key, value in message.items() if value is not None}
    thought = plain.pop(REASONING, None)
    if thought and template.reasoning:
        plain[template.reasoning] = thought
    if template.parts:
        plain["content"] = [{"type": "text", "text": plain["content"]}]
    return plain


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    own = getattr(tokenizer, "chat_template", None)
    where = tokenizer.name_or_path or "the tokenizer"
    if isinstance(own, dict):
        if "default" not in own:
            names = ", ".join(sorted(own))
            raise CurateError(
                f"{where}: has the chat templates {names}, none of them called default. "
                "Save the one to use in a file and give --chat-template FILE."
            )
        own = own["default"]
    if not own:
        raise CurateError(
            f"{where}: has no chat template. Give one with --chat-template FILE (a Jinja file, "
            "such as the chat_template.jinja of a chat model based on it)."
        )
    return str(own)


def _fitted(tokenizer: PreTrainedTokenizerBase, template: Template) -> Template:
    """The template with contents in the form that it reads. Raises jinja2's error for bad syntax.

    A template that rejects both forms for a single user message keeps plain text: it may require
    another first message, and then says so for each conversation.
    """
    from jinja2 import TemplateSyntaxError

    for candidate in (template, replace(template, parts=True)):
        try:
            if PROBE in write(tokenizer, candidate, [{"role": "user", "content": PROBE}], True):
                return candidate
        except Refused as refused:
            cause = refused.__cause__
            if isinstance(cause, TemplateSyntaxError):
                raise cause from None
    return template


def _reasoning(tokenizer: PreTrainedTokenizerBase, template: Template) -> Template:
    """The template with the key from which it writes an answer's reasoning."""
    answer = {"role": "assistant", "content": "!", REASONING: PROBE}
    turns = [{"role": "user", "content": "?"}, answer]
    for candidate in (replace(template, reasoning=key) for key in REASONING_KEYS):
        with suppress(Refused):
            if PROBE in write(tokenizer, candidate, turns, False):
                return candidate
    return template
