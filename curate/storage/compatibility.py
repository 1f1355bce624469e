"""Whether a model's scores would compare with those that a corpus has."""

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
    """Refuse models whose scores would not fit those of a corpus; gives back those that changed.

    Raises:
        CurateError: another template or length; a second aligned model; a model whose weights or
            tokenizer changed under its name, unless `replace`.
    """
    if record.settings is not None and record.settings != settings:
        raise CurateError(_difference(path, record.settings, settings))
    changed = []
    for name, entry in entries.items():
        old = record.models.get(name)
        if old is None:
            _check_new(path, record, name, entry)
            continue
        if old.role != entry.role:
            raise CurateError(f"model {name}: is the corpus's {old.role} model; give a new name")
        for what in ("fingerprint", "tokenizer"):
            if getattr(entry, what) in ("", getattr(old, what)):  # "": a dry run without weights
                continue
            same = (k for k, each in record.models.items() if each.fingerprint == entry.fingerprint)
            if not replace and (known := next(same, "")) not in ("", name):
                raise CurateError(
                    f"model {name}: {entry.reference} is {known} of this corpus; check the path"
                )
            new = f"score it under a new name (NEWNAME={entry.reference})"
            if entry.role == "aligned":
                new = "score into a new corpus"
            if not replace and old.commit and entry.commit not in (None, old.commit):
                raise CurateError(
                    f"model {name}: {entry.reference} moved from {old.commit} to {entry.commit}, "
                    f"and its {what} is not the one that scored {path}; go on with the old one as "
                    f"{name}={old.pinned}, {new}, or give --replace to throw the old scores away"
                )
            if not replace:
                raise CurateError(
                    f"model {name}: its {what} is not the one that scored {path}; the model at "
                    f"{entry.reference} changed: {new}, or give --replace to throw its old scores "
                    "away"
                )
            changed.append(name)
            break
    left = sorted(set(record.models) - set(entries))
    if left and any(entries[name].role == "aligned" for name in changed):
        raise CurateError(
            "the aligned model changed, and adapters over it with it: name every model of the "
            f"corpus with --replace; {', '.join(left)} is not named"
        )
    return changed


def _check_new(path: Path, record: Manifest, name: str, entry: ModelEntry) -> None:
    for known, other in record.models.items():
        # Names are folders', and some disks take `Med` and `med` for the same one.
        if known.casefold() == name.casefold():
            raise CurateError(
                f"{path}: has a model {known}; if it is this one give {known}={entry.reference}, "
                "else a name that differs from it in more than upper and lower case"
            )
        if entry.role == other.role == "aligned":
            raise CurateError(
                f"{path}: has an aligned model already, {known}, and {entry.reference} is another; "
                "leave out --aligned to go on with it, or score into a new corpus"
            )


def _difference(path: Path, known: Settings, asked: Settings) -> str:
    for name, option in (("max_length", "--max-length"), ("template_args", "--template-arg")):
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
