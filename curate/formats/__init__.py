"""Files that trainers read: one module per format and per trainer family."""

from __future__ import annotations

from curate.formats.alpaca import ALPACA
from curate.formats.axolotl import AXOLOTL
from curate.formats.format import Format
from curate.formats.llamafactory import LLAMAFACTORY
from curate.formats.messages import MESSAGES
from curate.formats.openai import OPENAI
from curate.formats.pairs import PROMPT_COMPLETION
from curate.formats.sharegpt import SHAREGPT
from curate.formats.swift import SWIFT
from curate.formats.trainer import Trainer
from curate.formats.trl import TRL

FORMATS: dict[str, Format] = {
    each.name: each for each in (MESSAGES, PROMPT_COMPLETION, SHAREGPT, ALPACA, OPENAI)
}
"""All but `text`, which is made with a model's chat template (formats/text.py)."""

TRAINERS: dict[str, Trainer] = {each.name: each for each in (TRL, AXOLOTL, LLAMAFACTORY, SWIFT)}
