"""One pass over a corpus: what some models that share an engine still lack, scored and stored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from curate import backends
from curate.backends import base
from curate.chat.encode import Encoded, encode
from curate.corpus.corpus import Corpus
from curate.corpus.views import OF_SCORING, checked, read_parquet
from curate.corpus.writer import ScoreSink, Writer
from curate.models.resolve import refuse_changed
from curate.scoring.collect import Lane, ModelRun
from curate.scoring.members import Member
from curate.storage import parts
from curate.system.progress import Progress
from curate.system.sql import readable_errors
from curate.system.stopping import check_cancelled, helper

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

WINDOW = 2_048
"""Examples, at most, encoded and handed to an engine at a time; it sorts them into batches."""
WINDOW_CHARACTERS = 8 << 20
"""Text in a window, unless one example holds more: seconds of the tokenizer, which can't stop."""


@readable_errors()
def missing(view: Corpus, model: str) -> int:
    """How many examples a model has neither scored nor refused."""
    return int(view.sql(f"select count(*) from ({PENDING})", {"model": model}).fetchall()[0][0])


def run_pass(
    writer: Writer,
    view: Corpus,
    members: Sequence[Member],
    runs: Sequence[ModelRun],
    label: str,
    compute: base.Compute,
    progress: Progress,
    *,
    keep_tokens: bool = False,
) -> None:
    """Load a group of models and score what each lacks, window by window; counts go into `runs`.

    `view` is the corpus as it was before any of these models was asked in this run.

    Raises:
        CurateError: a model can't be loaded, changed before, fails or refuses all; what was scored
            until then is stored.
    """
    names = [member.model.name for member in members]
    began = time.monotonic()
    progress.note(f"{label}: loading {', '.join(m.model.reference for m in members)}")
    backend = backends.open_backend([m.model for m in members], compute, progress.note)
    progress.start(label, sum(missing(view, name) for name in names))
    try:
        if backend.name != "server":  # which loaded them itself, whenever that was
            refuse_changed([member.model for member in members])
        for name in names:
            told = writer.note_run(name, backend.name, backend.dtype)
            if told:
                progress.note(told)
        windows = _windows(view, names, 1 if backend.whole_windows else backend.engines)
        with ExitStack() as stack:
            # First: whatever ends the run, scores are stored before the thread is awaited.
            thread = stack.enter_context(helper("encode"))
            encoded = _encoded_ahead(thread, windows, members, compute.max_length, keep_tokens)
            lanes = [
                Lane(
                    stack.enter_context(ScoreSink(writer, run.name, keep_tokens=keep_tokens)),
                    run,
                    bool(parts.list_parts(writer.path / "scores" / run.name)),
                )
                for run in runs
            ]
            for pairs in encoded:
                _score_window(pairs, lanes, backend, progress)
            for lane in lanes:
                lane.end()
    finally:
        backend.close()
        progress.stop()
        _share(time.monotonic() - began, runs)
        for run in runs:
            writer.note_speed(run.name, run.scored, run.tokens, run.seconds)


def _windows(view: Corpus, models: Sequence[str], engines: int) -> Iterator[pa.Table]:
    """Slices of the parts of examples in which a model lacks one, as a table.

    They depend on the parts and the engines alone and not on what is missing: a run that was broken
    off goes on with the windows, and so the batches and the last bits, of one that was not.
    """
    cursor = view.connection.cursor()
    with readable_errors():
        cursor.execute(f"create temp table finished as {_FINISHED}", {"models": list(models)})
    everything = (1 << len(models)) - 1
    for part in parts.list_parts(view.path.resolve() / "examples"):
        source = read_parquet([part], "file_row_number = true")
        query = _OF_PART.format(part=source, columns=checked(OF_SCORING, part.parent))
        with readable_errors():
            rows = cursor.sql(query).to_arrow_table()
        for start, stop in _cuts(rows["characters"].to_pylist(), engines):
            window = rows.slice(start, stop - start)
            if any(done != everything for done in window["done"].to_pylist()):
                yield window


def _cuts(sizes: Sequence[int], engines: int = 1) -> Iterator[tuple[int, int]]:
    """Where windows over examples of these sizes, in characters, start and stop.

    So many engines that share a window run out of work at its end no more often than one would.
    """
    most, room = WINDOW * engines, WINDOW_CHARACTERS * engines
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and (at - start == most or held + size > room):
            yield start, at
            start, held = at, 0
        held += size
    if start < len(sizes):
        yield start, len(sizes)


_Pair = tuple[int, str, Encoded | str, bool]


def _encoded_ahead(
    thread: ThreadPoolExecutor,
    windows: Iterator[pa.Table],
    members: Sequence[Member],
    max_length: int | None,
    keep_texts: bool,
) -> Iterator[list[_Pair]]:
    """Each window's pairs, made in a thread while the backend works on the window before.

    A fast device would else wait for the tokenizer, which leaves Python free while it works.
    """

    def encode_next() -> list[_Pair] | None:
        window = next(windows, None)
        return None if window is None else _pairs(window, members, max_length, keep_texts)

    coming = thread.submit(encode_next)
    while (pairs := coming.result()) is not None:
        coming = thread.submit(encode_next)
        yield pairs


def _score_window(
    pairs: Sequence[_Pair],
    lanes: Sequence[Lane],
    backend: base.Backend,
    progress: Progress,
) -> None:
    """Score the missing pairs of a window and hand the numbers on."""
    todo: list[tuple[str, int, Encoded]] = []
    known = set()
    for place, example_id, item, is_done in pairs:
        if is_done:
            if backend.whole_windows and not isinstance(item, str):
                known.add(len(todo))
                todo.append((example_id, place, item))
        elif isinstance(item, str):
            lanes[place].skip(example_id, item)
            progress.advance(1)
        else:
            todo.append((example_id, place, item))
    for index, found in backend.score([t[2] for t in todo], [t[1] for t in todo], known):
        check_cancelled()
        if index in known:
            continue
        example_id, place, item = todo[index]
        if isinstance(found, str):
            lanes[place].refuse(example_id, found)
        else:
            lanes[place].add(example_id, item, found, backend.dtype)
        progress.advance(1, item.stop)


def _pairs(
    window: pa.Table, members: Sequence[Member], max_length: int | None, keep_texts: bool
) -> list[_Pair]:
    """A window's pairs: the model's place, the example's id, its tokens or a reason, and if done.

    Models with equal tokenisers share one encoding.
    """
    messages = window.column("messages").to_pylist()
    encoded: dict[str, list[Encoded | str]] = {}
    for member in members:  # the aligned model comes first
        if member.tokenizer_digest not in encoded:
            encoded[member.tokenizer_digest] = encode(
                member.tokenizer,
                member.template,
                messages,
                max_length=max_length,
                keep_texts=keep_texts and member.model.role == "aligned",
            )
    rows = zip(window["example_id"].to_pylist(), window["done"].to_pylist(), strict=True)
    return [
        (place, example_id, encoded[member.tokenizer_digest][row], bool(done >> place & 1))
        for row, (example_id, done) in enumerate(rows)
        for place, member in enumerate(members)
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
    select hex_id(example_id::uuid) as example_id, messages, coalesce(done, 0)::ubigint as done,
        list_sum([length(m.content) for m in messages])::bigint as characters
    from (select {columns}, file_row_number from {part})
    left join finished on example_id::uuid = key
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
