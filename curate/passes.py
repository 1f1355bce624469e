"""One pass over a corpus: what some models that share an engine still lack, scored and stored."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate import backends, chat, parts
from curate.corpus import Corpus, readable_errors
from curate.members import Member
from curate.progress import Progress
from curate.stopping import heed
from curate.writing import ScoreSink, Writer

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 2_048
"""Examples rendered and handed to a backend at a time; it sorts them into batches."""


@dataclass
class ModelRun:
    """What one model did in this run.

    `tokens` counts prompt and answer. `seconds` is all the time it took, loading included; models
    that share an engine divide its time by their tokens.
    """

    name: str
    role: str
    scored: int = 0
    skipped: int = 0
    truncated: int = 0
    tokens: int = 0
    seconds: float = 0.0


def missing(view: Corpus, model: str) -> int:
    """How many examples a model has neither scored nor refused."""
    return int(view.sql(f"select count(*) from ({PENDING})", {"model": model}).fetchall()[0][0])


def run_pass(
    writer: Writer,
    members: Sequence[Member],
    runs: Sequence[ModelRun],
    label: str,
    compute: backends.Compute,
    progress: Progress,
    *,
    keep_tokens: bool = False,
) -> None:
    """Load a group of models and score what each lacks, window by window; counts go into `runs`.

    Raises:
        CurateError: a model can't be loaded or fails; what was scored until then is stored.
    """
    names = [member.model.name for member in members]
    view = Corpus(writer.path)
    began = time.monotonic()
    progress.note(f"{label}: loading {', '.join(m.model.reference for m in members)}")
    backend = backends.open_backend([m.model for m in members], compute, progress.note)
    progress.start(label, sum(missing(view, name) for name in names))
    try:
        for name in names:
            writer.note_run(name, backend.name, backend.dtype)
        with ExitStack() as stack:
            sinks = [
                stack.enter_context(ScoreSink(writer, name, keep_tokens=keep_tokens))
                for name in names
            ]
            lanes = list(zip(members, sinks, runs, strict=True))
            for window in _windows(view, names):
                _score_window(window, lanes, backend, compute.max_length, progress)
    finally:
        backend.close()
        progress.stop()
        _share(time.monotonic() - began, runs)
        for run in runs:
            writer.note_speed(run.name, run.scored, run.tokens, run.seconds)


def _windows(view: Corpus, models: Sequence[str]) -> Iterator[pa.Table]:
    """Slices of the parts of examples in which a model lacks one: example_id, messages, done.

    They depend on the parts alone and not on what is missing: a run that was broken off goes on
    with the windows, and so the batches and the last bits, of one that was not.
    """
    cursor = view.connection.cursor()
    cursor.execute(f"create temp table finished as {_FINISHED}", {"models": list(models)})
    everything = (1 << len(models)) - 1
    for part in parts.list_parts(view.path / "examples"):
        with readable_errors():
            rows = cursor.sql(_OF_PART, params={"part": str(part.resolve())}).to_arrow_table()
        for start in range(0, rows.num_rows, WINDOW):
            window = rows.slice(start, WINDOW)
            if any(done != everything for done in window["done"].to_pylist()):
                yield window


_Lane = tuple[Member, ScoreSink, ModelRun]


def _score_window(
    window: pa.Table,
    lanes: Sequence[_Lane],
    backend: backends.Backend,
    max_length: int | None,
    progress: Progress,
) -> None:
    """Render a window of examples, score the missing pairs and hand the numbers on."""
    todo: list[tuple[str, int, chat.Rendered]] = []
    known = set()
    for place, example_id, item, is_done in _pairs(window, lanes, max_length):
        if is_done:
            if backend.whole_windows and not isinstance(item, str):
                known.add(len(todo))
                todo.append((example_id, place, item))
        elif isinstance(item, str):
            _, sink, run = lanes[place]
            sink.skip(example_id, item)
            run.skipped += 1
            progress.advance(1)
        else:
            todo.append((example_id, place, item))
    for index, logprobs in backend.score([t[2] for t in todo], [t[1] for t in todo], known):
        heed()
        if index in known:
            continue
        example_id, place, item = todo[index]
        _, sink, run = lanes[place]
        total = float(logprobs.sum(dtype="float64"))
        if math.isfinite(total):
            length = item.stop - item.start
            texts = item.texts if run.role == "aligned" else None  # once an example is enough
            sink.add(example_id, length, total, item.truncated, logprobs, texts)
            run.scored += 1
            run.truncated += item.truncated
        else:
            sink.skip(example_id, f"the log-prob is not finite ({total}) in {backend.dtype}")
            run.skipped += 1
        run.tokens += item.stop
        progress.advance(1, item.stop)


def _pairs(
    window: pa.Table, lanes: Sequence[_Lane], max_length: int | None
) -> list[tuple[int, str, chat.Rendered | str, bool]]:
    """A window's pairs: the model's place, the example's id, its tokens or a reason, and if done.

    Models with equal tokenisers share one rendering.
    """
    messages = window.column("messages").to_pylist()
    rendered: dict[str, list[chat.Rendered | str]] = {}
    for member, sink, _ in lanes:  # the aligned model comes first
        if member.tokenizer_digest not in rendered:
            rendered[member.tokenizer_digest] = chat.render(
                member.tokenizer,
                member.template,
                messages,
                max_length=max_length,
                keep_texts=sink.keep_tokens and member.model.role == "aligned",
            )
    rows = zip(window["example_id"].to_pylist(), window["done"].to_pylist(), strict=True)
    return [
        (place, example_id, rendered[member.tokenizer_digest][row], bool(done >> place & 1))
        for row, (example_id, done) in enumerate(rows)
        for place, (member, _, _) in enumerate(lanes)
    ]


def _share(seconds: float, runs: Sequence[ModelRun]) -> None:
    tokens = sum(run.tokens for run in runs)
    for run in runs:
        run.seconds += seconds * run.tokens / tokens if tokens else seconds / len(runs)


# `done` has a bit for each model of the group, the first one's lowest: 1 where nothing is missing.
_FINISHED = """
    select key, bit_or(1::ubigint << (list_position($models, model) - 1)) as done
    from (
        select key, model from score_parts where list_contains($models, model)
        union all
        select example_id::uuid, model from skipped where list_contains($models, model)
    )
    where key is not null
    group by key
"""
_OF_PART = """
    select hex_id(example_id::uuid) as example_id, messages, coalesce(done, 0)::ubigint as done
    from read_parquet($part, file_row_number = true) left join finished on example_id::uuid = key
    order by file_row_number
"""

# The examples that a model has neither scored nor skipped.
PENDING = """
    select example_id, messages from examples
    anti join (
        select example_id from scores where model = $model
        union all
        select example_id from skipped where model = $model
    ) using (example_id)
"""
