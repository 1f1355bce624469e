"""`answers.manifest.json`: which model wrote a folder's answers, and how they were drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from curate.errors import CurateError
from curate.reading.folders import ANSWERS
from curate.storage import parts
from curate.storage.documents import first_fault

_OPTIONS = {
    "fingerprint": "--model",
    "tokenizer": "--model",
    "template": "--chat-template",
    "template_args": "--template-arg",
    "max_length": "--max-length",
    "max_tokens": "--max-tokens",
    "temperature": "--temperature",
    "samples": "--samples",
    "seed": "--seed",
}
"""What has to be equal for all answers of a folder, and the option that sets it."""


@dataclass(frozen=True)
class Record:
    """The contents of the file.

    `fingerprint` is the digest of the weights, `tokenizer` that of the tokenizer, `template` that
    of the chat template with its arguments. `ends` are the token ids that end an answer; `dtype`
    and `backend` are those of the first run.
    """

    format_version: Literal[1]
    model: str
    reference: str
    commit: str | None
    fingerprint: str
    tokenizer: str
    template: str
    template_args: dict[str, Any]
    max_length: int | None
    max_tokens: int
    temperature: float
    samples: int
    seed: int
    ends: list[int]
    dtype: str = ""
    backend: str = ""


def check_sampling(max_tokens: int, temperature: float, samples: int) -> None:
    """Raise `CurateError` for numbers that give no answers, or several identical ones."""
    for option, number in (("--max-tokens", max_tokens), ("--samples", samples)):
        if number < 1:
            raise CurateError(f"{option} must be at least 1, not {number}")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise CurateError(f"--temperature must be 0 or more, not {temperature}")
    if samples > 1 and not temperature:
        raise CurateError(
            f"--samples {samples}: at temperature 0, all are the same. Use --temperature 1.0."
        )


def load(folder: Path) -> Record | None:
    """Read a folder's record; None if there is no such file.

    Raises `CurateError` if it is broken, or another version wrote it.
    """
    path = folder / ANSWERS
    try:
        return TypeAdapter(Record).validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CurateError(f"{path}: can't be read ({error.strerror})") from None
    except ValidationError as error:
        why = first_fault(error)
        raise CurateError(
            f"{path}: not a record of answers ({why}). Write the answers to a new folder."
        ) from None


def save(record: Record, folder: Path) -> None:
    """Write the record, whole or not at all."""
    parts.write_record(folder / ANSWERS, record)


def check(folder: Path, asked: Record) -> None:
    """Raise `CurateError` if the folder's answers are another model's or have other settings."""
    known = load(folder)
    for name, option in _OPTIONS.items() if known else ():
        old, new = getattr(known, name), getattr(asked, name)
        if new in ("", old):  # "": a dry run without weights
            continue
        if name in ("fingerprint", "tokenizer"):
            old, new = known.reference if known else "", asked.reference
            if old == new:
                new = f"{new}, whose {name} changed"
        shown = "another" if name == "template" else new
        raise CurateError(
            f"{folder}: its answers were written with {option} {_short(old)}, but this run has "
            f"{shown}. Give another --output."
        )


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
