"""Which (example, model) pairs are missing, and the way of their numbers to the corpus."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from curate import backends, chat, examples, models
from curate.corpus import Corpus
from curate.errors import CurateError
from curate.examples import Columns
from curate.manifest import ModelEntry, Settings
from curate.progress import Progress, Silent
from curate.writing import ScoreSink, Writer, open_for_writing

if TYPE_CHECKING:
    from curate.models import Model

WINDOW = 2_048
"""Examples rendered and handed to a backend at a time; it sorts them by length into batches."""
INTAKE_ROWS, INTAKE_BYTES = 32_768, 64 << 20


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
    new_examples: int = 0
    known_examples: int = 0
    skipped_rows: int = 0
    models: list[ModelRun] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """A model with the tokeniser and template that turn its examples into token ids."""

    model: Model
    tokenizer: Any
    template: chat.Template
    tokenizer_digest: str


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
        progress: told how the run goes; None says nothing.

    Raises:
        CurateError: anything that the user can mend; what was scored until then is kept.
    """
    progress = progress or Silent()
    members = models.resolve(aligned, misaligned)
    readers = _readers(members, chat_template, template_args or {}, answer_span, progress)
    limits = _max_length(members[0], max_length)
    settings = Settings(
        template=readers[0].template.digest,
        template_args=dict(template_args or {}),
        answer_span=answer_span,
        max_length=limits,
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
    # A source that isn't there or isn't readable is found before a folder is made.
    first = list(islice(batches, 1))
    with open_for_writing(Path(corpus)) as writer:
        writer.admit({reader.model.name: _entry(reader) for reader in readers}, settings)
        if sources:
            _take_in(writer, chain(first, batches), summary, progress)
            for source in sources:
                writer.manifest.add_source(
                    {"source": source, "where": where, "limit": limit, "turns": turns}
                )
            writer.save()
        for number, reader in enumerate(readers, 1):
            label = f"{reader.model.name} ({number} of {len(readers)})"
            summary.models.append(
                _score_model(
                    writer,
                    reader,
                    label,
                    limits,
                    progress,
                    {
                        "backend": backend,
                        "device": device,
                        "dtype": dtype,
                        "batch_tokens": batch_tokens,
                    },
                )
            )
    return summary


def _readers(
    members: Sequence[Model],
    override: str | None,
    args: Mapping[str, Any],
    span: Literal["turn", "content"],
    progress: Progress,
) -> list[Reader]:
    """Load each tokeniser once, and give all models the aligned model's template.

    Losses over different texts would not compare.
    """
    loaded: dict[Path, tuple[Any, str]] = {}
    readers: list[Reader] = []
    for model in members:
        if model.tokenizer not in loaded:
            tokenizer = chat.load_tokenizer(str(model.tokenizer))
            loaded[model.tokenizer] = (tokenizer, chat.tokenizer_digest(tokenizer))
        tokenizer, digest = loaded[model.tokenizer]
        if not readers:
            template = chat.template_of(tokenizer, override=override, args=args, answer_span=span)
        elif override is None and tokenizer.chat_template != readers[0].tokenizer.chat_template:
            progress.note(
                f"{model.name}: its own chat template differs; that of {readers[0].model.name} "
                "writes the text for every model"
            )
        readers.append(Reader(model, tokenizer, template, digest))
    return readers


def _max_length(aligned: Model, asked: int | None) -> int | None:
    context = models.context_length(aligned.path)
    if asked is not None and context is not None and asked > context:
        raise CurateError(
            f"--max-length {asked}: {aligned.name} reads at most {context} tokens; "
            f"give {context} or less"
        )
    return asked if asked is not None else context


def _entry(reader: Reader) -> ModelEntry:
    model = reader.model
    return ModelEntry(
        role=model.role,
        reference=model.reference,
        fingerprint=model.fingerprint,
        tokenizer=reader.tokenizer_digest,
        dtype="",
        backend="",
    )


def _take_in(
    writer: Writer,
    batches: Iterator[tuple[pa.Table, pa.Table]],
    summary: Summary,
    progress: Progress,
) -> None:
    progress.start("reading", None)
    waiting: list[pa.Table] = []

    def store() -> None:
        if waiting:
            table = pa.concat_tables(waiting)
            new = writer.add_examples(table)
            summary.new_examples += new
            summary.known_examples += table.num_rows - new
            waiting.clear()

    try:
        for table, skipped in batches:
            progress.advance(table.num_rows)
            waiting.append(table)
            summary.skipped_rows += skipped.num_rows
            if skipped.num_rows:
                writer.add_skipped(skipped)
            rows, size = (sum(part.num_rows for part in waiting), sum(p.nbytes for p in waiting))
            if rows >= INTAKE_ROWS or size >= INTAKE_BYTES:
                store()
    finally:
        store()
        progress.stop()


def _score_model(
    writer: Writer,
    reader: Reader,
    label: str,
    max_length: int | None,
    progress: Progress,
    options: dict[str, Any],
) -> ModelRun:
    run = ModelRun(reader.model.name, reader.model.role)
    view = Corpus(writer.path)
    missing = view.sql(f"select count(*) from ({_PENDING})", {"model": run.name}).fetchall()[0][0]
    if not missing:
        progress.note(f"{label}: nothing is missing")
        return run
    began = time.monotonic()
    progress.note(f"{label}: loading {reader.model.reference}")
    backend = backends.open_backend(reader.model, **options)
    progress.start(label, missing)
    try:
        writer.note_run(run.name, backend.name, backend.dtype)
        pending = view.sql(_PENDING, {"model": run.name}).to_arrow_reader(WINDOW)
        with ScoreSink(writer, run.name) as sink:
            for window in pending:
                _score_window(window, reader, backend, max_length, sink, run, progress)
    finally:
        backend.close()
        progress.stop()
        run.seconds = time.monotonic() - began
    return run


def _score_window(
    window: pa.RecordBatch,
    reader: Reader,
    backend: backends.Backend,
    max_length: int | None,
    sink: ScoreSink,
    run: ModelRun,
    progress: Progress,
) -> None:
    ids = window.column("example_id").to_pylist()
    conversations = window.column("messages").to_pylist()
    rendered = chat.render(reader.tokenizer, reader.template, conversations, max_length=max_length)
    usable = []
    for example_id, item in zip(ids, rendered, strict=True):
        if isinstance(item, str):
            sink.skip(example_id, item)
            run.skipped += 1
        else:
            usable.append((example_id, item))
    progress.advance(len(ids) - len(usable))
    for index, logprobs in backend.score([item for _, item in usable]):
        example_id, item = usable[index]
        total = float(logprobs.sum(dtype="float64"))
        if math.isfinite(total):
            sink.add(example_id, item.stop - item.start, total, item.truncated)
            run.scored += 1
            run.truncated += item.truncated
        else:
            sink.skip(example_id, f"the model's log-prob is not finite ({total})")
            run.skipped += 1
        run.tokens += item.stop
        progress.advance(1, item.stop)


_PENDING = """
    select example_id, messages from examples
    anti join (
        select example_id from scores where model = $model
        union all
        select example_id from skipped where model = $model
    ) using (example_id)
"""
