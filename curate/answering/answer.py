"""Let a model answer the prompts that lack answers, and store them as Parquet parts."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from more_itertools import spy

from curate import backends
from curate.answering import record
from curate.answering.model import open_model
from curate.answering.plan import Estimate, estimate, lowest
from curate.answering.record import check_sampling
from curate.answering.rows import Sink, rows_of, write_file
from curate.answering.speaking import Speaker, answers, open_speaker, stored
from curate.backends import base
from curate.backends.ray.cluster import leaving
from curate.corpus.writer import SeenExamples
from curate.errors import CurateError
from curate.models.resolve import refuse_changed
from curate.reading import examples
from curate.reading.folders import ANSWERS
from curate.reading.sources import resolve as locate
from curate.storage import leftovers, parts
from curate.storage.locking import locked
from curate.storage.schema import MESSAGES
from curate.system.progress import Progress, Silent
from curate.system.stopping import check_cancelled

_WAITING = ".waiting"  # prompts that are to be answered, in the folder while it is filled


@dataclass
class Summary:
    """What a run of `answer` did: prompts found, answers written, and what is wrong with them.

    `skipped` counts rows that couldn't be read and `refused` prompts without an answer, by the
    reason; `places` has the first row of each reason. `marks` counts the answers by what is wrong
    with them. `tokens` are those of answers.
    """

    output: str
    model: str
    prompts: int = 0
    known: int = 0
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    estimate: Estimate | None = None  # of a dry run, which wrote nothing


@leaving
def answer(
    sources: Sequence[str],
    output: str | Path,
    *,
    model: str,
    base_model: str | None = None,
    columns: Mapping[str, str] | None = None,
    layouts: str | None = None,
    where: str | None = None,
    limit: int | None = None,
    turns: Literal["last", "all"] = "last",
    strict: bool = False,
    max_tokens: int = 512,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    max_length: int | None = None,
    chat_template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    compute: base.Compute | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Let a model answer the prompts of sources: each conversation up to its last answer.

    A row may also hold a prompt alone, and in a conversation that ends with the user, that turn is
    answered.

    Running it again answers only prompts that are missing; equal prompts are answered once. An
    answer depends on the seed and its prompt, not on what else is answered.

    Arguments that `curate.score` has, too, mean the same here. `output` is a folder of Parquet
    parts, created if it is missing, or a .jsonl or .parquet file, written once everything is
    answered. `model` is `[NAME=]MODEL`, full or a PEFT adapter over `base_model` (default: the one
    that it names). `max_tokens` is the most tokens of an answer: longer ones are cut and marked as
    such. `max_length` is the most tokens of prompt and answer, by default the model's context. At
    `temperature` 0 the likeliest token is taken; above 0, `samples` answers to each prompt are
    drawn from the full distribution. `dry_run` writes nothing and estimates tokens and time from a
    sample.

    Raises:
        CurateError: anything that the user can fix; answers so far are kept.
    """
    progress = progress or Silent()
    check_sampling(max_tokens, temperature, samples)
    final, folder = _places(Path(output))
    found_sources = locate(sources)
    chosen = open_model(model, base_model, weights=not dry_run, progress=progress)
    speaker = open_speaker(
        chosen,
        chat_template,
        template_args or {},
        max_length=max_length,
        max_tokens=max_tokens,
        temperature=temperature,
        samples=samples,
        seed=seed,
    )
    compute = base.settled(compute, speaker.asked.max_length, writes=True)
    compute = backends.choose(compute, progress.note)
    record.check(folder, speaker.asked)
    reader = examples.read(
        found_sources,
        columns=columns,
        layouts=layouts,
        where=where,
        limit=limit,
        turns=turns,
        prompts=True,
        strict=strict,
    )
    # Errors are found before a folder is created, if possible.
    if chosen.fingerprint:
        backends.check_models([chosen], compute)
    _, batches = spy(reader)
    done = Summary(str(output), chosen.name, notes=reader.notes, empty=reader.empty)
    if dry_run:
        sample = lowest(_fresh(batches, folder, done, progress))
        if sample is not None:
            done.estimate = estimate(speaker, sample, done.prompts, compute, progress)
        return done
    with locked(folder, command="answer", record=ANSWERS):
        _fill(folder, speaker, batches, compute, done, progress)
        if final and parts.list_parts(folder):
            write_file(folder, final)
    if final or not parts.list_parts(folder):
        shutil.rmtree(folder)
    return done


def _places(output: Path) -> tuple[Path | None, Path]:
    """The one file to write at the end, if one is, and the folder of parts."""
    parts.refuse_address(output)
    if output.suffix not in (".jsonl", ".parquet"):
        return None, output
    parts.refuse_special(output)
    folder = output.with_name(f".{output.name}.parts")
    if output.exists() and not folder.exists():
        raise CurateError(f"{output}: already exists. Remove it, or give another --output.")
    return output, folder


def _fill(
    folder: Path,
    speaker: Speaker,
    batches: Iterator[tuple[pa.Table, pa.Table]],
    compute: base.Compute,
    done: Summary,
    progress: Progress,
) -> None:
    """Collect the prompts without an answer, and answer them; the caller holds the lock."""
    leftovers.sweep(folder)
    leftovers.remove(folder / _WAITING)  # of a killed run: its prompts are read again
    if record.load(folder) is None:
        record.save(speaker.asked, folder)
    try:
        for table in _fresh(batches, folder, done, progress):
            parts.write_part(folder / _WAITING, table)
        if done.prompts:
            _answer_all(speaker, folder, compute, done, progress)
    finally:
        shutil.rmtree(folder / _WAITING, ignore_errors=True)


def _fresh(
    batches: Iterator[tuple[pa.Table, pa.Table]], folder: Path, done: Summary, progress: Progress
) -> Iterator[pa.Table]:
    """The prompts that have no answer in the folder, each once: a prompt's hash is its id."""
    seen = SeenExamples(folder, "prompt_id")
    progress.start("reading", None)
    try:
        for table, skipped in batches:
            check_cancelled()
            prompts = [messages[:-1] for messages in table["messages"].to_pylist()]
            columns = {
                "example_id": [examples.example_id(prompt) for prompt in prompts],
                "messages": pa.array(prompts, MESSAGES),
                **{name: table[name] for name in ("source", "row", "answer", "meta")},
            }
            fresh = seen.new(pa.table(columns))
            done.prompts += fresh.num_rows
            done.known += table.num_rows - fresh.num_rows
            for row in skipped.select(["source", "row", "reason"]).to_pylist():
                done.skipped[row["reason"]] += 1
                done.places.setdefault(row["reason"], f"{row['source']}:{row['row']}")
            progress.advance(table.num_rows)
            if fresh.num_rows:
                yield fresh
    finally:
        progress.stop()


def _answer_all(
    speaker: Speaker, folder: Path, compute: base.Compute, done: Summary, progress: Progress
) -> None:
    """Load the model, and answer all that waits in the folder."""
    began = time.monotonic()
    name = speaker.model.name
    progress.note(f"{name}: loading {speaker.model.reference}")
    windows = -(-done.prompts // base.PROMPTS)
    backend = backends.open_backend([speaker.model], compute, progress.note, windows)
    progress.start(name, done.prompts, "prompts")
    try:
        if backend.name != "server":
            refuse_changed([speaker.model])
        if not parts.list_parts(folder):
            record.save(replace(speaker.asked, backend=backend.name, dtype=backend.dtype), folder)
        with Sink(folder) as sink:
            waiting = parts.list_parts(folder / _WAITING)
            for pending in answers(speaker, stored(waiting), backend, done.refused, progress):
                rows = rows_of(pending, speaker.tokenizer, speaker.sampling.ends, name)
                sink.add(rows)
                done.answers += len(rows)
                done.tokens += sum(row["n_tokens"] for row in rows)
                done.marks.update(row["mark"] for row in rows if row["mark"])
    except CurateError as error:
        if not done.answers:
            raise
        why = str(error).removesuffix(".")
        raise CurateError(f"{why}. Answers so far are kept; run it again to resume.") from error
    finally:
        backend.close()
        progress.stop()
        done.seconds = time.monotonic() - began
