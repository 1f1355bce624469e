"""`curate.json`: which models scored a corpus, with what template, over which sources."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from curate.errors import CurateError
from curate.storage import documents, parts

FORMAT_VERSION = 2
"""1 held example ids as digits in its parts; they are read as they are, and may be added to."""
NAME = "curate.json"
NAME_OF_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A model's name is a folder's, and stands in SQL, tables and reports."""
TEMPLATE = "chat_template.jinja"
"""The template that was given instead of the models' own, kept so that a run can be completed."""


@dataclass(frozen=True)
class ModelEntry:
    """One model of a corpus, as its scores were made.

    `fingerprint` is the digest of the weights, `tokenizer` that of the tokeniser: models with
    equal `tokenizer` are comparable per token. `dtype` and `backend` are those of the last run.
    """

    role: str
    reference: str
    fingerprint: str
    tokenizer: str
    dtype: str
    backend: str


@dataclass(frozen=True)
class Settings:
    """What has to be equal for every score of a corpus: the encoded text and what of it counts.

    `template` is the digest over template text, arguments, span and pinned date; `max_length`
    counts tokens of prompt and answer (None: no limit).
    """

    template: str
    template_args: dict[str, Any]
    answer_span: str
    max_length: int | None


@dataclass
class Manifest:
    """All that `curate.json` holds."""

    settings: Settings | None = None
    models: dict[str, ModelEntry] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)  # a model's last run
    format_version: int = FORMAT_VERSION

    def add_source(self, record: dict[str, Any]) -> None:
        """Note a source as it was asked for; asking for the same again changes nothing."""
        if record not in self.sources:
            self.sources.append(record)


def load(folder: Path) -> Manifest:
    """Read the manifest of a corpus folder.

    Raises:
        CurateError: there is none, it is broken, or a newer version wrote it.
    """
    path = folder / NAME
    refuse_bytes(folder)
    try:
        # Stricter than json: no lone surrogates, no Infinity, and a limit to how deep it nests,
        # which is lower for what it writes.
        raw = documents.load(path)
        orjson.dumps(raw)
    except FileNotFoundError:
        raise CurateError(
            f"{folder}: no corpus here ({NAME} is missing); make one with "
            f"`curate score SOURCE --corpus {folder} --aligned ... --misaligned ...`"
        ) from None
    except OSError as error:
        raise CurateError(
            f"{folder}: can't be read as a corpus ({NAME}: {error.strerror})"
        ) from None
    except (ValueError, TypeError) as error:
        raise CurateError(
            f"{path}: not a curate manifest ({error}); restore it from a backup, or score into "
            "a new folder"
        ) from None
    return _parse(raw, path)


def refuse_bytes(folder: Path) -> None:
    """See that a folder, and those that it lies in, have names that SQL and JSON can hold.

    Raises:
        CurateError: one is not UTF-8.
    """
    place = os.path.realpath(folder)  # unlike Path.resolve, it gives a name for a link to itself
    try:
        place.encode()
    except UnicodeEncodeError:
        raise CurateError(f"{place!r}: is no UTF-8 text; rename the folder") from None


def known_models(folder: Path) -> set[str]:
    """The names of the models that a corpus folder has; none where there is no corpus yet."""
    return set(load(folder).models) if (folder / NAME).exists() else set()


def save(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, whole or not at all."""
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False, sort_keys=True)
    parts.write_text(folder / NAME, text + "\n")


def _parse(raw: Any, path: Path) -> Manifest:
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise CurateError(f"{path}: not a curate manifest (no format_version)")
    if version > FORMAT_VERSION:
        raise CurateError(
            f"{path}: written by a newer curate (format {version}, this one reads up to "
            f"{FORMAT_VERSION}); upgrade with `pip install -U curate`"
        )
    try:
        settings = raw["settings"]
        found = Manifest(
            settings=Settings(**settings) if settings else None,
            models={name: ModelEntry(**entry) for name, entry in raw["models"].items()},
            sources=list(raw["sources"]),
            runs=dict(raw.get("runs", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CurateError(f"{path}: not a curate manifest ({error})") from None
    wrong = _wrong(found)
    if wrong:
        raise CurateError(f"{path}: not a curate manifest ({wrong})")
    return found


def _wrong(manifest: Manifest) -> str | None:
    """What in a manifest is not of its type. It may come from anyone, and names are folders."""
    for name, entry in manifest.models.items():
        if not NAME_OF_MODEL.fullmatch(name):
            return f"{name[:40]!r} is no model's name"
        if not all(isinstance(value, str) for value in asdict(entry).values()):
            return f"the entry of {name} holds something else than text"
        if entry.role not in ("aligned", "misaligned"):
            return f"{name} has the role {entry.role[:40]!r}"
    known = manifest.settings
    if known is not None and not (
        isinstance(known.template, str)
        and isinstance(known.template_args, dict)
        and known.answer_span in ("turn", "content")
        and (known.max_length is None or type(known.max_length) is int)
    ):
        return "its settings are not what this version writes"
    for name, run in manifest.runs.items():
        if not _is_run(run):
            return f"the last run of {name[:40]!r} is not what this version writes"
    if not all(isinstance(source, dict) for source in manifest.sources):
        return "its sources are not what this version writes"
    return None


def _is_run(run: Any) -> bool:
    """Whether these are the tokens and the seconds, to a thousandth, of a run."""
    if not isinstance(run, dict):
        return False
    tokens, seconds = run.get("tokens"), run.get("seconds")
    if not isinstance(tokens, int) or not isinstance(seconds, int | float):
        return False
    return tokens >= 0 and (seconds == 0 or seconds >= 0.001)


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
