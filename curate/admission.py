"""Which models and settings a corpus takes: those whose scores compare with what it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate.errors import CurateError
from curate.manifest import Manifest, ModelEntry, Settings


def check_admission(
    path: Path,
    record: Manifest,
    entries: Mapping[str, ModelEntry],
    settings: Settings,
    replace: bool = False,
) -> list[str]:
    """Refuse models whose scores would not fit those that a corpus has; see `Writer.admit`.

    Returns the names of models that changed, where `replace` lets them.
    """
    if record.settings is not None and record.settings != settings:
        raise CurateError(_difference(path, record.settings, settings))
    changed = []
    for name, entry in entries.items():
        what = _changed(path, record, name, entry)
        if what is not None and not replace:
            raise CurateError(
                f"model {name}: its {what} is not the one that scored {path}; the model "
                f"at {entry.reference} changed: score it under a new name "
                f"(NEWNAME={entry.reference}), or give --replace to throw its old scores away"
            )
        if what is not None:
            changed.append(name)
    return changed


def _changed(path: Path, record: Manifest, name: str, entry: ModelEntry) -> str | None:
    """What of a known model is not as it was; None where nothing is or the model is new."""
    old = record.models.get(name)
    if old is None:
        others = (other for other, e in record.models.items() if e.role == "aligned")
        aligned = next(others, None)
        if entry.role == "aligned" and aligned is not None:
            raise CurateError(
                f"{path}: has an aligned model already, {aligned}; if it is this one give "
                f"--aligned {aligned}={entry.reference}, else score into a new corpus"
            )
        return None
    if old.role != entry.role:
        raise CurateError(f"model {name}: is the corpus's {old.role} model; give a new name")
    parts = ("fingerprint", "tokenizer")
    return next((what for what in parts if getattr(old, what) != getattr(entry, what)), None)


def _difference(path: Path, known: Settings, asked: Settings) -> str:
    for name, option in (
        ("answer_span", "--answer-span"),
        ("max_length", "--max-length"),
        ("template_args", "--template-arg"),
        ("template", "--chat-template"),
    ):
        old, new = getattr(known, name), getattr(asked, name)
        if old != new:
            return (
                f"{path}: was scored with {option} {old}, this run has {new}; scores would not "
                f"compare: give the same {option}, or score into a new corpus"
            )
    raise AssertionError("equal settings")  # pragma: no cover
