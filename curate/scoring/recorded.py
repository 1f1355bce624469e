"""Models and settings of earlier runs, which later runs reuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.corpus.only import chosen
from curate.errors import CurateError
from curate.scoring.members import Member
from curate.scoring.passes import missing
from curate.storage.manifest import TEMPLATE, Manifest, Only
from curate.system.progress import Progress


@dataclass(frozen=True)
class Asked:
    """The models of a run, as `[NAME=]MODEL`, and what makes the text that they read."""

    aligned: str
    misaligned: Sequence[str]
    max_length: int | None
    chat_template: str | None
    template_args: dict[str, Any]


def completed(
    folder: Path,
    record: Manifest | None,
    misaligned: Sequence[str],
    max_length: int | None,
    chat_template: str | None,
    template_args: dict[str, Any],
) -> Asked:
    """A run that names no aligned model takes the corpus's own, at its commit, and its settings.

    Without any model named, it takes all of the corpus's.

    Raises:
        CurateError: the corpus has none yet, or it is not where it was.
    """
    known = record.models if record else {}
    names = sorted(known, key=lambda name: (known[name].role, name))
    if not names or known[names[0]].role != "aligned":
        raise CurateError(f"{folder}: has no aligned model yet. Give --aligned MODEL.")
    given = []
    for name in names if not misaligned else names[:1]:
        entry = known[name]
        if entry.commit is None and not Path(entry.reference).expanduser().exists():
            raise CurateError(
                f"{folder}: its {entry.role} model {name} was read from {entry.reference}, "
                f"which no longer exists. Give its new place: --{entry.role} {name}=MODEL"
                + ("" if entry.role == "aligned" else f" --aligned {known[names[0]].pinned}")
            )
        given.append(f"{name}={entry.pinned}")
    settings = record.settings if record else None
    template = folder / TEMPLATE
    if chat_template is None and template.exists():
        chat_template = template.read_text("utf-8")
    return Asked(
        given[0],
        [*given[1:], *misaligned],
        settings.max_length if settings and max_length is None else max_length,
        chat_template,
        template_args or (settings.template_args if settings else {}),
    )


def renamed(members: Sequence[Member], record: Manifest | None, progress: Progress) -> list[Member]:
    """A run's models by the names that a corpus knows them under, by their fingerprints."""
    known = dict(record.models) if record else {}
    for member in members:
        known.pop(member.model.name, None)
    found = []
    for member in members:
        own, model = member.entry, member.model
        same = [
            name
            for name, entry in known.items()
            if (own.role, own.fingerprint, own.tokenizer)
            == (entry.role, entry.fingerprint, entry.tokenizer)
        ]
        is_new = record is None or model.name not in record.models
        if is_new and same and model.fingerprint:
            del known[same[0]]
            progress.note(f"{model.name}: by its fingerprint, this is the corpus's model {same[0]}")
            member = replace(member, model=replace(model, name=same[0]))
        found.append(member)
    return found


def restrict(
    view: Corpus, members: Sequence[Member], only: str, keep_tokens: bool
) -> tuple[pa.Table, dict[str, Only]]:
    """The examples that `only` leaves to the models which lack any, and what to remember of these.

    The gaps are those of the misaligned models that had scored when the condition was first given,
    which the corpus remembers: so a resumed run asks for the same examples.

    Raises:
        CurateError: what `chosen` raises.
    """
    record, names = view.manifest, [member.model.name for member in members]
    lacking = [
        name for name in names if name not in record.models or missing(view, name, keep_tokens)
    ]
    known = [record.only[name] for name in lacking if name in record.only]
    over = [each.over for each in known if each.where == only]
    if not over:
        roles = {name: entry.role for name, entry in record.models.items()}
        have = [n for n in roles if roles[n] == "misaligned" and n not in lacking]
        over = [sorted(have)]
    return chosen(view, only, over[0]), dict.fromkeys(lacking, Only(only, over[0]))
