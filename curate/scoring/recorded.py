"""What earlier runs recorded: models and settings to reuse, and commits of the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.corpus.only import chosen
from curate.errors import CurateError
from curate.models.fetch import Found, weights_differ
from curate.reading.addresses import HubSet, Source, parse
from curate.scoring.members import Member
from curate.scoring.passes import missing
from curate.storage.compatibility import check_compatible
from curate.storage.manifest import NAME, TEMPLATE, Manifest, Only, load
from curate.system.progress import Progress


@dataclass(frozen=True)
class Asked:
    """The models of a run, as `[NAME=]MODEL`, and the options that shape the text they read.

    `aligned` is empty if it isn't named.
    """

    aligned: str
    misaligned: Sequence[str]
    max_length: int | None
    chat_template: str | None
    template_args: dict[str, Any]


def completed(folder: Path, record: Manifest | None, asked: Asked) -> Asked:
    """Fill in what isn't named: the corpus's aligned model, at its commit, and its settings.

    If no model is named, all of the corpus's models are used.

    Raises:
        CurateError: the corpus has no aligned model yet, or the model is no longer where it was.
    """
    if asked.aligned:
        return asked
    known = record.models if record else {}
    names = sorted(known, key=lambda name: (known[name].role, name))
    if not names or known[names[0]].role != "aligned":
        raise CurateError(f"{folder}: has no aligned model yet. Give --aligned MODEL.")
    given = []
    for name in names if not asked.misaligned else names[:1]:
        entry = known[name]
        if entry.commit is None and not Path(entry.reference).expanduser().exists():
            raise CurateError(
                f"{folder}: its {entry.role} model {name} was read from {entry.reference}, "
                f"which no longer exists. Give its new place: --{entry.role} {name}=MODEL"
                + ("" if entry.role == "aligned" else f" --aligned {known[names[0]].pinned}")
            )
        given.append(f"{name}={entry.pinned}")
    settings = record.settings if record else None
    template, length = asked.chat_template, asked.max_length
    if template is None and (folder / TEMPLATE).exists():
        template = (folder / TEMPLATE).read_text("utf-8")
    return Asked(
        given[0],
        [*given[1:], *asked.misaligned],
        settings.max_length if settings and length is None else length,
        template,
        asked.template_args or (settings.template_args if settings else {}),
    )


def renamed(members: Sequence[Member], record: Manifest | None, progress: Progress) -> list[Member]:
    """A run's models under the names that the corpus has for their fingerprints."""
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
    """The examples that `only` chooses for models with missing scores, and what to remember of it.

    The gaps are those of the misaligned models that had scored when the condition was first given;
    the corpus remembers these, so a resumed run asks for the same examples.

    Raises:
        CurateError: as in `chosen`, or the condition holds for no example.
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
    found = chosen(view, only, over[0])
    if not found.num_rows:
        raise CurateError(f"--only {only!r}: holds for no example of {view.path}")
    return found, dict.fromkeys(lacking, Only(only, over[0]))


def records(
    arguments: Sequence[str], sources: Sequence[Source], asked: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each source as given, for the manifest; a Hub dataset with its commit."""
    for argument in arguments:
        commit = _commit(argument, sources)
        yield {"source": argument, **asked} | ({"commit": commit} if commit else {})


def moved(
    folder: Path, arguments: Sequence[str], sources: Sequence[Source], members: Sequence[Member]
) -> Iterator[str]:
    """A note for each source and model whose commit has changed since the corpus last read it."""
    if not (folder / NAME).exists():
        return
    record = load(folder)
    for argument in arguments:
        wanted, new = parse(argument), _commit(argument, sources)
        known = [each for each in record.sources if _same(each.get("source", ""), wanted)]
        old = known[-1].get("commit") if known else None
        if old and new and old != new and isinstance(wanted, HubSet):
            yield (
                f"{argument}: moved from {old} to {new} since it was read into {folder}. This adds "
                f"the new rows; for the old ones only, use {replace(wanted, revision=old)}."
            )
    for member in members:
        name, entry = member.model.name, member.entry
        known_as = record.models.get(name)
        if known_as is None or not known_as.commit or not entry.commit:
            continue
        same = known_as.pinned.partition("@")[0] == entry.pinned.partition("@")[0]
        if same and known_as.commit != entry.commit:
            yield (
                f"{name}: {entry.reference} moved from {known_as.commit} to {entry.commit} since "
                f"it scored {folder}. For the old one, use {name}={known_as.pinned}."
            )


def refuse_moved(folder: Path, record: Manifest | None, found: Sequence[tuple[str, Found]]) -> None:
    """Reject models of a corpus whose weights have changed, before they are downloaded.

    Raises:
        CurateError: as in `check_compatible`.
    """
    if record is None or record.settings is None:
        return
    for name, each in found:
        known = record.models.get(name)
        if known and known.commit and weights_differ(each, known.reference, known.commit):
            entry = replace(known, reference=str(each.at), commit=each.commit, fingerprint="?")
            check_compatible(folder, record, {name: entry}, record.settings)


def _same(source: str, wanted: str | HubSet) -> bool:
    """Whether a source was this Hub dataset, at any revision and however it was written."""
    found = parse(source)
    if not isinstance(found, HubSet) or not isinstance(wanted, HubSet):
        return False
    one, other = (replace(each, revision=None, path=each.path or None) for each in (found, wanted))
    return one == other


def _commit(argument: str, sources: Sequence[Source]) -> str | None:
    return next((each.commit for each in sources if each.asked == argument), None)
