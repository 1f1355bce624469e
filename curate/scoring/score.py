"""Score what a corpus lacks: find the missing (example, model) pairs, and store their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from more_itertools import spy

from curate import backends
from curate.backends import base
from curate.backends.ray.cluster import leaving
from curate.corpus.corpus import Corpus
from curate.corpus.writer import Writer, open_for_writing
from curate.errors import CurateError
from curate.models.resolve import check_length, find_all, opened
from curate.reading import examples
from curate.reading.addresses import Source
from curate.reading.sources import resolve as locate
from curate.scoring.collect import ModelRun
from curate.scoring.ingest import Ingested, drawn, ingest
from curate.scoring.members import Member, Work, open_members
from curate.scoring.passes import missing
from curate.scoring.plan import plan
from curate.scoring.race import Outcome, asked_race, count_examples, expected, race
from curate.scoring.recorded import (
    Asked,
    completed,
    moved,
    records,
    refuse_moved,
    renamed,
    restrict,
)
from curate.scoring.stage import score_members
from curate.storage import manifest, parts
from curate.storage.manifest import TEMPLATE, Manifest, Only, Settings
from curate.system.progress import Progress, Silent


@dataclass
class Summary:
    """The result of `score`: rows read, a run per model, and the models that scored nothing."""

    corpus: str
    read: Ingested = field(default_factory=Ingested)
    models: list[ModelRun] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    dry_run: bool = False  # nothing was written: tokens and seconds are estimates
    timed: bool = True  # in a dry run: some weights were here, so that seconds could be estimated
    spread: tuple[float, float] = (1.0, 1.0)  # the range of the estimates, as factors of them
    workers: int = 1  # that the estimates count on
    race: Outcome | None = None


@leaving
def score(
    sources: Sequence[str],
    corpus: str | Path,
    *,
    aligned: str | None = None,
    misaligned: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    layouts: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    turns: Literal["last", "all"] = "last",
    strict: bool = False,
    max_length: int | None = None,
    chat_template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    compute: base.Compute | None = None,
    only: str | None = None,
    top: float | None = None,
    recall: float = 0.99,
    audit: int | None = None,
    proxy: str | Path | None = None,
    keep_tokens: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Read sources into a corpus, and score missing examples under every model.

    Running it again computes only missing (example, model) pairs; without sources, it scores the
    examples in the corpus. Scores are stored every few seconds, in long runs every minute, which is
    the most that a killed run loses.

    Args:
        sources: files, folders, globs or hf:// references, as in docs/scoring.md.
        corpus: the folder, created if it is missing.
        aligned: `[NAME=]MODEL`, a local folder or Hub id. Default: the corpus's aligned model,
            with its template and maximum length.
        misaligned: the ensemble, likewise; a folder with adapter_config.json is a PEFT adapter.
            Without any model, all models of the corpus are used.
        columns: names of columns by role (messages, prompt, answer, system, context, history,
            reasoning), for layouts that aren't detected.
        layouts: a file with more layouts (docs/input-formats.md).
        where: a SQL condition over a source's own columns, `prompt` and `answer`; only rows that
            meet it are read.
        limit: the most examples per item of `sources`, such as a file, a folder or a Hub dataset.
        sample: draw this many examples evenly over all sources; larger samples include smaller
            ones.
        seed: the seed of the sample, and of a race's audit sample.
        turns: `last`, or `all` to make an example of each assistant turn.
        strict: stop at the first row that can't be used, instead of recording it as skipped.
        max_length: the most tokens of prompt and answer; longer answers are truncated. Default:
            the aligned model's context length.
        chat_template: Jinja text instead of the aligned model's own chat template.
        template_args: variables for the template, such as `{"enable_thinking": False}`.
        compute: the backend and its options, see `curate.Compute`.
        only: a SQL condition over `examples` and, by the misaligned models that have scored so far,
            `ranks`; models with missing scores score only the examples that meet it.
        top: race: score under all models only what can reach the top, a share below 1 or a count
            (docs/race.md).
        recall: the expected share of the top that a race finds.
        audit: examples in a race's random sample. Default: a tenth of the pool, at most 2,000.
        proxy: a corpus with the same examples, ranked by smaller models, which decides what the
            race's first models score.
        keep_tokens: also store the log-probability of each answer token, for `curate show` and the
            report. The corpus remembers this; scores without tokens are computed again.
        replace: discard the scores of a model whose weights or tokenizer changed under its name,
            instead of rejecting the model.
        dry_run: write nothing; estimate the work and the time, from a sample timed on one model.
            Weights are not downloaded for this.
        progress: receives the run's progress. Default: silent.

    Raises:
        CurateError: anything that the user can fix; scores so far are kept.
    """
    progress = progress or Silent()
    folder = Path(corpus)
    parts.refuse_address(folder, corpus=True)
    found_sources = locate(sources) if sources else []
    options: dict[str, Any] = {"where": where, "limit": limit, "turns": turns}
    reader, batches = _reader(folder, found_sources, options, columns, layouts, strict)
    batches = drawn(batches, sample, seed, progress)
    options |= {} if sample is None else {"sample": sample, "seed": seed}
    record = manifest.load(folder) if (folder / manifest.NAME).exists() else None
    if only is not None and top is not None:
        raise CurateError("--only and --top: give one; a race chooses the examples itself")
    to_race = asked_race(record, top, recall, audit, seed, str(proxy) if proxy else None)
    asked = Asked(aligned or "", misaligned, max_length, chat_template, dict(template_args or {}))
    asked = completed(folder, record, asked)
    served = compute is not None and bool(compute.servers)
    members = _members(folder, record, asked, replace, dry_run, served, progress)
    for text in moved(folder, sources, found_sources, members):
        progress.warn(text)
    models = [member.model for member in members]
    settings = Settings(
        template=members[0].template.digest,
        template_args=asked.template_args,
        max_length=check_length(models, asked.max_length),
    )
    compute = backends.choose(base.settled(compute, settings.max_length), progress.note)
    known = record.models if record and not replace else {}
    checked = [each for each in models if each.fingerprint and each.name not in known]
    backends.check_models(checked, compute)
    keep_tokens = keep_tokens or bool(record and record.keep_tokens)
    work = Work(folder, members, settings, compute, progress, replace, keep_tokens, to_race)
    chosen = None
    if only is not None and record and (dry_run or not sources):  # which may bring columns
        chosen = restrict(Corpus(folder), members, only, keep_tokens)
    if dry_run:
        return _planned(work, batches, reader, chosen and chosen[0])
    with open_for_writing(folder) as writer:
        _add_models(work, writer, asked.chat_template)
        read = Ingested()
        if reader:
            read = ingest(writer, batches, progress)
            read.notes, read.empty = reader.notes, reader.empty
            for each in records(sources, found_sources, options):
                writer.manifest.add_source(each)
            writer.save()
        if only is not None and chosen is None:
            chosen = restrict(Corpus(folder), members, only, keep_tokens)
        runs, outcome = _scored(work, writer, chosen)
        empty = [each.name for each in runs if each.skipped and not writer.has_scores(each.name)]
        return Summary(str(corpus), read, runs, empty, race=outcome)


Batches = Iterator[tuple[pa.Table, pa.Table]]


def _reader(
    folder: Path,
    sources: Sequence[Source],
    options: Mapping[str, Any],
    columns: Mapping[str, str] | None,
    layouts: str | None,
    strict: bool,
) -> tuple[examples.Reader | None, Batches]:
    """The reader of the sources and its batches; without sources, None and no batches."""
    if not sources:
        if not (folder / "examples").exists():
            raise CurateError(f"{folder}: has no examples yet. Give a SOURCE to read.")
        return None, iter(())
    reader = examples.read(sources, columns=columns, layouts=layouts, strict=strict, **options)
    # Errors are found before models are loaded and a folder is created, if possible.
    _, batches = spy(reader)
    return reader, batches


def _members(
    folder: Path,
    record: Manifest | None,
    asked: Asked,
    replace: bool,
    dry_run: bool,
    served: bool,
    progress: Progress,
) -> list[Member]:
    """The models, under the names that the corpus has for them."""
    found = find_all(asked.aligned, asked.misaligned, progress)
    if not replace:
        refuse_moved(folder, record, found)
    resolved = opened(found, weights=not dry_run, progress=progress)
    members = open_members(resolved, asked.chat_template, asked.template_args, progress)
    if served:  # servers know models by the names that were given
        return members
    return renamed(members, record, progress)


def _planned(
    work: Work, batches: Batches, reader: examples.Reader | None, wanted: pa.Table | None
) -> Summary:
    """What the run would do; nothing is written."""
    read, runs, spread = plan(work, batches, wanted)
    if reader:
        read.notes, read.empty = [*reader.notes, *read.notes], reader.empty
    if work.race:
        exists = (work.corpus / manifest.NAME).exists()
        pool = read.new + (count_examples(work.corpus) if exists else 0)
        seconds = sum(run.seconds for run in runs)
        read.notes.append(expected(work.race, pool, len(work.members) - 1, seconds))
    timed = all(run.seconds or not run.scored for run in runs)
    workers = backends.workers(work.compute)
    return Summary(str(work.corpus), read, runs, [], True, timed, spread, workers)


def _add_models(work: Work, writer: Writer, chat_template: str | None) -> None:
    entries = {member.model.name: member.entry for member in work.members}
    writer.manifest.keep_tokens = work.keep_tokens
    for name in writer.add_models(entries, work.settings, replace=work.replace):
        work.progress.note(f"{name}: changed under its name; its old scores are discarded")
    if chat_template is not None:
        parts.write_text(writer.path / TEMPLATE, chat_template)


def _scored(
    work: Work, writer: Writer, chosen: tuple[pa.Table, dict[str, Only]] | None
) -> tuple[list[ModelRun], Outcome | None]:
    """Race, or score what is missing: everything, or what `--only` chose (which is remembered)."""
    how = work.members, work.compute, work.progress, work.keep_tokens
    if work.race:
        return race(writer, *how, work.race)
    if chosen is None:
        for member in work.members:
            writer.manifest.only.pop(member.model.name, None)
    else:
        writer.manifest.only |= chosen[1]
    writer.save()
    runs = score_members(writer, *how, chosen and chosen[0])
    view = Corpus(writer.path)
    if writer.manifest.race and not any(missing(view, name) for name in view.manifest.models):
        writer.manifest.race = None  # every model has scored or skipped all
        writer.save()
    return runs, None
