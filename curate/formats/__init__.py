"""Files that trainers read: one module per format and per trainer family."""

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
"""All but `text`, which is made with a model's chat template (`text_format` in formats/base.py)."""

TRAINERS: dict[str, Trainer] = {each.name: each for each in (TRL, AXOLOTL, LLAMAFACTORY, SWIFT)}
