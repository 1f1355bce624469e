"""Which models and settings a corpus takes: those whose scores compare with what it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate.errors import CurateError
from curate.storage.manifest import Manifest, ModelEntry, Settings


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
    if any(entries[name].role == "aligned" for name in changed):
        _check_all_named(record, entries)
    return changed


def _check_all_named(record: Manifest, entries: Mapping[str, ModelEntry]) -> None:
    """Adapters change with the model under them, so none may be left with its old scores."""
    left = sorted(set(record.models) - set(entries))
    if left:
        raise CurateError(
            "the aligned model changed, and adapters over it with it: name every model of the "
            f"corpus with --replace; {', '.join(left)} is not named"
        )


def _changed(path: Path, record: Manifest, name: str, entry: ModelEntry) -> str | None:
    """What of a known model is not as it was; None where nothing is or the model is new."""
    old = record.models.get(name)
    if old is None:
        # Names are folders', and some disks take `Med` and `med` for the same one.
        alike = (other for other in record.models if other.casefold() == name.casefold())
        if (known := next(alike, None)) is not None:
            raise CurateError(
                f"{path}: has a model {known}; if it is this one give {known}={entry.reference}, "
                "else a name that differs from it in more than upper and lower case"
            )
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
    ):
        old, new = getattr(known, name), getattr(asked, name)
        if old != new:
            return (
                f"{path}: was scored with {option} {old}, this run has {new}; scores would not "
                f"compare: give the same {option}, or score into a new corpus"
            )
    return (
        f"{path}: was scored with another chat template (the aligned model's changed, or "
        "--chat-template); scores would not compare: give the old one as --chat-template, or score "
        "into a new corpus"
    )
