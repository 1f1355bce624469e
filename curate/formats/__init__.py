"""Files that trainers read: one module per format and trainer family."""

from __future__ import annotations

from curate.formats.axolotl import AXOLOTL
from curate.formats.base import ALPACA, MESSAGES, PROMPT_COMPLETION, SHAREGPT, Format, Trainer
from curate.formats.llamafactory import LLAMAFACTORY
from curate.formats.openai import OPENAI
from curate.formats.swift import SWIFT
from curate.formats.trl import TRL

FORMATS: dict[str, Format] = {
    each.name: each for each in (MESSAGES, PROMPT_COMPLETION, SHAREGPT, ALPACA, OPENAI)
}
"""All formats but `text`, which needs a model's chat template (`text_format` in base.py)."""

TRAINERS: dict[str, Trainer] = {each.name: each for each in (TRL, AXOLOTL, LLAMAFACTORY, SWIFT)}
