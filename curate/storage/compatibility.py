"""Whether a model's scores are comparable with those of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate.errors import CurateError
from curate.storage.manifest import Manifest, ModelEntry, Settings


def check_compatible(
    path: Path,
    record: Manifest,
    entries: Mapping[str, ModelEntry],
    settings: Settings,
    replace: bool = False,
) -> list[str]:
    """Reject models whose scores would not be comparable; return the names of those that changed.

    Raises:
        CurateError: another template or length; a second aligned model; or, without `replace`, a
            model whose weights or tokenizer changed under its name.
    """
    if record.settings is not None and record.settings != settings:
        raise CurateError(_difference(path, record.settings, settings))
    changed = []
    for name, entry in entries.items():
        old = record.models.get(name)
        if old is None:
            _check_new(path, record, name, entry)
        elif old.role != entry.role:
            raise CurateError(
                f"model {name}: this is the corpus's {old.role} model. Choose another name."
            )
        elif part := _changed_part(old, entry):
            if not replace:
                raise CurateError(f"model {name}: {_change(path, record, name, entry, part)}")
            changed.append(name)
    left = sorted(set(record.models) - set(entries))
    if left and any(entries[name].role == "aligned" for name in changed):
        raise CurateError(
            "the aligned model changed, and so do its adapters. Give every model of the "
            f"corpus with --replace; missing: {', '.join(left)}"
        )
    return changed


def _changed_part(old: ModelEntry, new: ModelEntry) -> str | None:
    """What differs: the fingerprint or the tokenizer, unless a dry run has no weights to tell."""
    for part in ("fingerprint", "tokenizer"):
        if getattr(new, part) not in ("", getattr(old, part)):
            return part
    return None


def _change(path: Path, record: Manifest, name: str, entry: ModelEntry, part: str) -> str:
    """What happened to a model that changed under its name, and what to do."""
    old = record.models[name]
    same = (k for k, each in record.models.items() if each.fingerprint == entry.fingerprint)
    if (known := next(same, name)) != name:
        return f"{entry.reference} is the corpus's {known}. Check the path."
    instead = f"score it under a new name (NEWNAME={entry.reference})"
    if entry.role == "aligned":
        instead = "score into a new corpus"
    if old.commit and entry.commit not in (None, old.commit):
        return (
            f"{entry.reference} moved from {old.commit} to {entry.commit}, and its {part} differs "
            f"from that in {path}. To keep the old one, use {name}={old.pinned}; or {instead}, or "
            "use --replace to discard the old scores."
        )
    return (
        f"the {part} of {entry.reference} has changed since scoring. To continue, {instead}, or "
        "use --replace to discard the old scores."
    )


def _check_new(path: Path, record: Manifest, name: str, entry: ModelEntry) -> None:
    for known, other in record.models.items():
        # Names are folder names, and some disks ignore case.
        if known.casefold() == name.casefold():
            raise CurateError(
                f"{path}: has a model {known}. If it is this one, give {known}={entry.reference}; "
                "otherwise, choose a name that differs in more than case."
            )
        if entry.role == other.role == "aligned":
            raise CurateError(
                f"{path}: its aligned model is {known}, and {entry.reference} is another. "
                "Remove --aligned to use it, or score into a new corpus."
            )


def _difference(path: Path, known: Settings, asked: Settings) -> str:
    for name, option in (("max_length", "--max-length"), ("template_args", "--template-arg")):
        old, new = getattr(known, name), getattr(asked, name)
        if old != new:
            return (
                f"{path}: was scored with {option} {old}, but this run has {new}: scores would not "
                f"be comparable. Use the same {option}, or score into a new corpus."
            )
    return (
        f"{path}: was scored with another chat template (the aligned model's has changed, or "
        "--chat-template differs). Give the old template with --chat-template, or score "
        "into a new corpus."
    )
