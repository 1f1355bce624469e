"""Which (example, model) pairs are missing, and the way of their numbers to the corpus."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from curate import backends, chat, examples, models, parts
from curate.corpus import Corpus
from curate.errors import CurateError
from curate.examples import Columns
from curate.intake import Intake, take_in
from curate.manifest import TEMPLATE, Settings, known_models
from curate.members import Member, check_length, open_members
from curate.planning import PENDING, plan
from curate.progress import Progress, Silent
from curate.stopping import heed
from curate.writing import ScoreSink, Writer, open_for_writing

if TYPE_CHECKING:
    from curate.models import Model

WINDOW = 2_048
"""Examples rendered and handed to a backend at a time; it sorts them by length into batches."""


@dataclass
class ModelRun:
    """What one model did in this run. `tokens` counts prompt and answer, `seconds` all of it."""

    name: str
    role: str
    scored: int = 0
    skipped: int = 0
    truncated: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class Summary:
    """What a run of `score` did: rows read, and a line per model."""

    corpus: str
    read: Intake = field(default_factory=Intake)
    models: list[ModelRun] = field(default_factory=list)
    dry_run: bool = False  # nothing was written: tokens and seconds are estimates


def score(
    sources: Sequence[str],
    corpus: str | Path,
    *,
    aligned: str,
    misaligned: Sequence[str] = (),
    columns: Columns | None = None,
    where: str | None = None,
    limit: int | None = None,
    turns: Literal["last", "all"] = "last",
    strict: bool = False,
    max_length: int | None = None,
    chat_template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    answer_span: Literal["turn", "content"] = "turn",
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    batch_tokens: int | None = None,
    keep_tokens: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Read sources into a corpus and score what is missing under every model named.

    Running it again computes only missing (example, model) pairs; without sources it scores the
    examples that the corpus holds. Scores are stored every few seconds, so a killed run loses
    only those.

    Args:
        sources: files, folders, globs or hf:// references (see `curate.examples.read`).
        corpus: the folder; made if it isn't there.
        aligned: `[NAME=]MODEL`, a local folder or hub id.
        misaligned: the ensemble, likewise; a folder with adapter_config.json is a PEFT adapter.
        columns: which of a source's columns hold what, where the format isn't recognised.
        where: SQL over a source's own columns; only rows for which it is true are read.
        limit: the most examples to read.
        turns: `last`, or `all` to make an example of each assistant turn.
        strict: stop at the first row that can't be used, instead of recording it as skipped.
        max_length: tokens of prompt and answer; longer answers are cut at their end. Default:
            the aligned model's context length.
        chat_template: Jinja text instead of the aligned model's own chat template.
        template_args: variables for the template, such as `{"enable_thinking": False}`.
        answer_span: `turn` counts the end-of-turn tokens, `content` only the answer's text.
        backend: what computes log-probs: `auto` or `transformers`.
        device: `cuda`, `mps` or `cpu`; None takes the fastest there is.
        dtype: `float32`, `bfloat16` or `float16`; None suits the device.
        batch_tokens: padded tokens in one forward pass; None suits the device.
        keep_tokens: store every answer token's log-prob too, for `curate show` and the report.
        dry_run: write nothing; estimate what would be computed, from a sample timed on one model.
        progress: told how the run goes; None says nothing.

    Raises:
        CurateError: anything that the user can mend; what was scored until then is kept.
    """
    progress = progress or Silent()
    resolved = models.resolve(aligned, misaligned)
    members = open_members(resolved, chat_template, template_args or {}, answer_span, progress)
    settings = Settings(
        template=members[0].template.digest,
        template_args=dict(template_args or {}),
        answer_span=answer_span,
        max_length=check_length(resolved, max_length),
    )
    load = partial(
        backends.open_backend,
        backend=backend,
        device=device,
        dtype=dtype,
        batch_tokens=batch_tokens,
    )
    summary = Summary(corpus=str(corpus))
    if not sources and not (Path(corpus) / "examples").exists():
        raise CurateError(f"{corpus}: holds no examples yet; name a SOURCE to read")
    batches: Iterator[tuple[pa.Table, pa.Table]] = iter(())
    if sources:
        batches = examples.read(
            sources,
            columns=columns or Columns(),
            where=where,
            limit=limit,
            turns=turns,
            strict=strict,
        )
    # What can be found wrong is found before a folder is made.
    backends.check_models(
        [model for model in resolved if model.name not in known_models(Path(corpus))],
        backend,
        device=device,
        dtype=dtype,
    )
    first = list(islice(batches, 1))
    entries = {member.model.name: member.entry for member in members}
    if dry_run:
        read, found = plan(Path(corpus), members, chain(first, batches), settings, load, progress)
        runs = [ModelRun(e.name, e.role, e.examples, 0, 0, e.tokens, e.seconds) for e in found]
        return Summary(str(corpus), read, runs, dry_run=True)
    with open_for_writing(Path(corpus)) as writer:
        writer.admit(entries, settings)
        if chat_template is not None:
            parts.write_text(writer.path / TEMPLATE, chat_template)
        if sources:
            summary.read = take_in(writer, chain(first, batches), progress)
            for source in sources:
                writer.manifest.add_source(
                    {"source": source, "where": where, "limit": limit, "turns": turns}
                )
            writer.save()
        for number, member in enumerate(members, 1):
            label = f"{member.model.name} ({number} of {len(members)})"
            summary.models.append(
                _score_model(
                    writer, member, label, settings.max_length, load, progress, keep_tokens
                )
            )
    return summary


def _score_model(
    writer: Writer,
    member: Member,
    label: str,
    max_length: int | None,
    load: Callable[[Model], backends.Backend],
    progress: Progress,
    keep_tokens: bool,
) -> ModelRun:
    """Load one model and score what it lacks, window by window."""
    run = ModelRun(member.model.name, member.model.role)
    view = Corpus(writer.path)
    missing = view.sql(f"select count(*) from ({PENDING})", {"model": run.name}).fetchall()[0][0]
    if not missing:
        progress.note(f"{label}: nothing is missing")
        return run
    began = time.monotonic()
    progress.note(f"{label}: loading {member.model.reference}")
    backend = load(member.model)
    progress.start(label, missing)
    try:
        writer.note_run(run.name, backend.name, backend.dtype)
        pending = view.sql(PENDING, {"model": run.name}).to_arrow_reader(WINDOW)
        with ScoreSink(writer, run.name, keep_tokens=keep_tokens) as sink:
            for window in pending:
                _score_window(window, member, backend, max_length, sink, run, progress)
    finally:
        backend.close()
        progress.stop()
        run.seconds = time.monotonic() - began
        writer.note_speed(run.name, run.scored, run.tokens, run.seconds)
    return run


def _score_window(
    window: pa.RecordBatch,
    member: Member,
    backend: backends.Backend,
    max_length: int | None,
    sink: ScoreSink,
    run: ModelRun,
    progress: Progress,
) -> None:
    """Render a window of examples, score it and hand the numbers on."""
    ids = window.column("example_id").to_pylist()
    conversations = window.column("messages").to_pylist()
    rendered = chat.render(
        member.tokenizer,
        member.template,
        conversations,
        max_length=max_length,
        keep_texts=sink.keep_tokens and run.role == "aligned",
    )
    usable = []
    for example_id, item in zip(ids, rendered, strict=True):
        if isinstance(item, str):
            sink.skip(example_id, item)
            run.skipped += 1
        else:
            usable.append((example_id, item))
    progress.advance(len(ids) - len(usable))
    for index, logprobs in backend.score([item for _, item in usable]):
        heed()
        example_id, item = usable[index]
        total = float(logprobs.sum(dtype="float64"))
        if math.isfinite(total):
            length = item.stop - item.start
            sink.add(example_id, length, total, item.truncated, logprobs, item.texts)
            run.scored += 1
            run.truncated += item.truncated
        else:
            sink.skip(example_id, f"the model's log-prob is not finite ({total})")
            run.skipped += 1
        run.tokens += item.stop
        progress.advance(1, item.stop)
