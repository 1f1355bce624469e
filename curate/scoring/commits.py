"""The commits of what a run reads from the Hub, and whether they have moved since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curate.models.fetch import Found, weights_differ
from curate.reading.addresses import HubSet, Source, parse
from curate.scoring.members import Member
from curate.storage import manifest
from curate.storage.compatibility import check_compatible


def records(
    arguments: Sequence[str], sources: Sequence[Source], asked: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each source as given, for the corpus's manifest; for the Hub's, with its commit."""
    for argument in arguments:
        commit = _commit(argument, sources)
        yield {"source": argument, **asked} | ({"commit": commit} if commit else {})


def moved(
    folder: Path, arguments: Sequence[str], sources: Sequence[Source], members: Sequence[Member]
) -> Iterator[str]:
    """A note for each source and model whose commit has changed since the corpus last read it."""
    if not (folder / manifest.NAME).exists():
        return
    record = manifest.load(folder)
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


def refuse_moved(
    folder: Path, record: manifest.Manifest | None, found: Sequence[tuple[str, Found]]
) -> None:
    """Refuse models of a corpus whose weights are others now, before these are fetched.

    Raises:
        CurateError: that of `check_compatible` for them.
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
    return _plain(found) == _plain(wanted)


def _plain(found: HubSet) -> HubSet:
    return replace(found, revision=None, path=found.path or None)


def _commit(argument: str, sources: Sequence[Source]) -> str | None:
    return next((each.commit for each in sources if each.asked == argument), None)
