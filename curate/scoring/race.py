"""A race: all models score a sample; then each scores only what can still reach the top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.backends import base
from curate.corpus.corpus import Corpus
from curate.corpus.race import LEAST, Field, answer, field, proxy_gaps, take_proxy
from curate.corpus.recall import Recall, first_to_last, keep
from curate.corpus.writer import Writer
from curate.errors import CurateError
from curate.scoring.collect import ModelRun
from curate.scoring.members import Member
from curate.scoring.stage import score_members
from curate.storage.manifest import Manifest, Race
from curate.system.progress import Progress

AUDIT_SHARE, AUDIT_MOST = 0.1, 2_000
WORTH = 0.95
"""A stage that keeps more of what it could leave behind than this keeps all."""


@dataclass(frozen=True)
class Outcome:
    """What a race did: its passes and those of a full run, the size of the top, and the recall.

    `why` is the reason if everything was scored.
    """

    passes: int
    full: int
    top: int
    recall: Recall
    why: str = ""


def asked_race(
    record: Manifest | None,
    top: float | None,
    recall: float,
    audit: int | None,
    seed: int,
    proxy: str | None,
) -> Race | None:
    """The race that the options ask for; None without `top`.

    Raises:
        CurateError: a value is out of range or differs from that of the unfinished race, or the
            proxy ranks nothing.
    """
    if top is None:
        for name, given in (("audit", audit), ("proxy", proxy)):
            if given is not None:
                raise CurateError(f"--{name} needs --top.")
        return None
    if not (0 < top < 1 or (top >= 1 and top == int(top))):
        raise CurateError(f"--top {top:g}: give a share between 0 and 1, or a count")
    if not 0.5 <= recall < 1:
        raise CurateError(f"--recall {recall:g}: give a share of the top from 0.5 to below 1")
    if audit is not None and audit < LEAST:
        raise CurateError(f"--audit {audit}: give at least {LEAST} examples")
    begun = record.race if record else None
    new = Race(top, recall, audit or 0, seed, proxy or "")
    if begun is None or begun.depth is not None:
        if proxy is not None:
            proxy_gaps(proxy)
        return new
    new = replace(new, audit=audit or begun.audit, proxy=proxy or begun.proxy)
    for name in ("top", "recall", "audit", "seed", "proxy"):
        if (old := getattr(begun, name)) != getattr(new, name):
            raise CurateError(
                f"--{name} {getattr(new, name)}: the unfinished race uses {old or 'none'}. Use "
                "that, or omit --top to score everything."
            )
    return new


def race(
    writer: Writer,
    members: Sequence[Member],
    compute: base.Compute,
    progress: Progress,
    keep_tokens: bool,
    asked: Race,
) -> tuple[list[ModelRun], Outcome]:
    """Race the models to the top. Decisions depend only on scores, so a killed race repeats them.

    Raises:
        CurateError: the top is larger than the pool, a model of the ensemble isn't named, or as in
            `score_members`.
    """
    runs = [ModelRun(member.model.name, member.model.role) for member in members]

    def score(names: Sequence[str], wanted: pa.Table | None) -> Field:
        """Score some examples by these models; the corpus as it is then."""
        chosen = [member for member in members if member.model.name in names]
        for run in score_members(writer, chosen, compute, progress, keep_tokens, wanted):
            _add(next(each for each in runs if each.name == run.name), run)
        return field(Corpus(writer.path), asked.seed)

    every = [member.model.name for member in members]
    pool = field(Corpus(writer.path), asked.seed)
    count = len(pool.ids)
    if asked.top > count:
        raise CurateError(f"--top {asked.top:g} is more than the pool has: {count:,}")
    asked = replace(asked, audit=asked.audit or min(int(AUDIT_SHARE * count), AUDIT_MOST))
    why = _nothing_to_race(writer, every[1:])
    if not why and not LEAST <= asked.audit <= count // 2:
        why = f"{count:,} examples are too few for an audit sample that saves anything"
    if why:
        progress.note(f"--top: {why}, so everything is scored")
        score(every, None)
        return runs, _outcome(writer, None, why)
    if asked.proxy and not (writer.manifest.race and writer.manifest.race.depth is None):
        take_proxy(writer.path, asked.proxy, pool.ids)
    writer.manifest.race = asked
    writer.save()
    progress.note(f"race: the audit sample, {asked.audit:,} examples, under all models")
    pool = score(every, pa.table({"example_id": pool.ids[: asked.audit]}))
    _stages(pool, asked, every[0], score, progress)
    return runs, _outcome(writer, asked)


Score = Callable[[Sequence[str], pa.Table | None], Field]


def _stages(pool: Field, asked: Race, aligned: str, score: Score, progress: Progress) -> None:
    """After the audit sample: score under one more model, then drop what can't reach the top."""
    audit, top = pool.audit(asked.audit), wanted_top(asked, len(pool.ids))
    sample, alive = pool.ids[: asked.audit], pool.ids
    order = first_to_last(audit, len(pool.models), pool.facts)
    for done, place in enumerate(order):
        known = [*order[:done], *pool.facts] if done else pool.proxy
        if known:
            running = _among(pool.ids, alive)
            behind = pool.left(audit, ~running, top / len(pool.ids))
            values = pool.values[known]
            may_go = running & ~_among(pool.ids, sample) & np.isfinite(values).all(axis=0)
            allowed = (1 - asked.recall) * top
            turns = len(order) - done
            kept = keep(behind, known, values[:, may_go], audit, top, allowed, turns)
            if may_go.any() and kept.mean() < WORTH:
                running[np.flatnonzero(may_go)[~kept]] = False
                alive = pool.ids.filter(pa.array(running))
            progress.note(
                f"race: {len(alive):,} of {len(pool.ids):,} examples can reach the top {top:,}"
            )
        first = [] if done else [aligned]
        pool = score([*first, pool.models[place]], pa.table({"example_id": alive}))


def _among(ids: pa.Array, some: pa.Array) -> NDArray[np.bool_]:
    found = pc.is_in(ids, some).to_numpy(zero_copy_only=False)
    return np.array(found, bool)


def wanted_top(asked: Race, count: int) -> int:
    """The size of a race's top."""
    return max(1, round(asked.top * count)) if asked.top < 1 else int(asked.top)


def expected(asked: Race, count: int, models: int, seconds: float) -> str:
    """What a race may save, as a note; how much depends on how far the models will agree."""
    audit = asked.audit or min(int(AUDIT_SHARE * count), AUDIT_MOST)
    rest, top = count - audit, min(wanted_top(asked, count), count)
    least = audit * (models + 1) + rest * 2 + (models - 1) * top
    if asked.proxy:
        least = (audit + top) * (models + 1)
    full = count * (models + 1)
    share = min(least / full, 1)
    whole, less = (
        f", about {timedelta(seconds=round(seconds * of))}" if seconds else "" for of in (1, share)
    )
    return (
        f"A full run makes {full:,} passes{whole}. A race makes {share:.0%} of them or more{less}, "
        "depending on how much the models agree"
    )


def count_examples(folder: Path) -> int:
    """How many examples a corpus holds."""
    return int(Corpus(folder).sql("select count(*) from example_parts").fetchall()[0][0])


def _nothing_to_race(writer: Writer, misaligned: Sequence[str]) -> str:
    """Why there is nothing to race; an empty string if there is.

    Raises:
        CurateError: a model of the ensemble isn't named.
    """
    if missing := sorted(set(writer.manifest.misaligned) - set(misaligned)):
        raise CurateError(
            f"--top races the whole ensemble: name every misaligned model, or none; not named: "
            f"{', '.join(missing)}"
        )
    if not misaligned:
        return "there is no misaligned model, so there is nothing to race"
    if len(misaligned) == 1:
        return "with one misaligned model there is nothing to race"
    return ""


def _add(total: ModelRun, run: ModelRun) -> None:
    for name in ("scored", "skipped", "truncated", "tokens", "seconds", "loading"):
        setattr(total, name, getattr(total, name) + getattr(run, name))


def _outcome(writer: Writer, asked: Race | None, why: str = "") -> Outcome:
    """The outcome of a race, which is also recorded in the manifest."""
    corpus = Corpus(writer.path)
    query = "select (select count(*) from score_parts), (select count(*) from example_parts)"
    ((passes, count),) = corpus.sql(query).fetchall()
    full = count * len(corpus.manifest.models)
    if asked is None:
        writer.manifest.race = None
        writer.save()
        return Outcome(passes, full, 0, Recall(1, 1, 1, 0, (1, 1)), why)
    top = wanted_top(asked, count)
    found = answer(corpus, asked, top=top)
    writer.manifest.race = replace(asked, depth=top, passes=[passes, full])
    writer.save()
    if passes > WORTH * full:
        why = "the models agree too little to leave examples out"
    return Outcome(passes, full, top, found, why)
