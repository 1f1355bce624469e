"""At which commits a run takes what it reads from the hub, and whether these moved since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curate.reading.addresses import HubSet, Source, parse
from curate.scoring.members import Member
from curate.storage import manifest


def records(
    arguments: Sequence[str], sources: Sequence[Source], asked: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Each source as it was asked for, for the corpus's manifest; of the hub's with its commit."""
    for argument in arguments:
        commit = _commit(argument, sources)
        yield {"source": argument, **asked} | ({"commit": commit} if commit else {})


def moved(
    folder: Path, arguments: Sequence[str], sources: Sequence[Source], members: Sequence[Member]
) -> Iterator[str]:
    """A line for each source and model that is at another commit than when a corpus last had it."""
    if not (folder / manifest.NAME).exists():
        return
    record = manifest.load(folder)
    for argument in arguments:
        wanted, new = parse(argument), _commit(argument, sources)
        known = [each for each in record.sources if _same(each.get("source", ""), wanted)]
        old = known[-1].get("commit") if known else None
        if old and new and old != new and isinstance(wanted, HubSet):
            yield (
                f"{argument} moved from {old} to {new} since it was read into {folder}, which gets "
                f"rows of both; {replace(wanted, revision=old)} has the old ones alone"
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
                f"it scored {folder}; {name}={known_as.pinned} is the one that did"
            )


def _same(source: str, wanted: str | HubSet) -> bool:
    """Whether a source was this set of the hub, at any revision and however it was written."""
    found = parse(source)
    if not isinstance(found, HubSet) or not isinstance(wanted, HubSet):
        return False
    return _plain(found) == _plain(wanted)


def _plain(found: HubSet) -> HubSet:
    return replace(found, revision=None, path=found.path or None)


def _commit(argument: str, sources: Sequence[Source]) -> str | None:
    return next((each.commit for each in sources if each.asked == argument), None)
