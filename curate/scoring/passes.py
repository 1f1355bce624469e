"""One pass over a corpus: score and store what the models that share an engine still lack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from operator import itemgetter
from typing import NamedTuple

import duckdb
import pyarrow as pa
from more_itertools import constrained_batches

from curate import backends
from curate.backends import base
from curate.chat.encode import Encoded, encode
from curate.corpus.corpus import Corpus
from curate.corpus.views import read_parquet
from curate.corpus.writer import ScoreSink, Writer, bare_parts
from curate.models.resolve import Model, refuse_changed
from curate.scoring.collect import Collector, ModelRun
from curate.scoring.members import Member
from curate.storage import parts
from curate.system.progress import Progress
from curate.system.sql import literal, readable_errors
from curate.system.stopping import check_cancelled

WINDOW = 2_048
"""Examples, at most, encoded and handed to an engine at a time; it sorts them into batches."""
WINDOW_CHARACTERS = 8 << 20
"""Text in a window, unless one example holds more: seconds of the tokenizer, which can't stop."""


class Ahead(NamedTuple):
    """A window to score, and its pairs that can't be: the model's index, example id, reason."""

    window: base.Window
    skips: list[tuple[int, str, str]]


@readable_errors()
def missing(
    view: Corpus, model: str, keep_tokens: bool = False, wanted: pa.Table | None = None
) -> int:
    """How many examples a model has neither scored, with tokens if they are kept, nor skipped.

    `wanted` holds the `example_id`s that count; None counts all.
    """
    return int(pending(view, model, keep_tokens, wanted).count("*").fetchall()[0][0])


def pending(
    view: Corpus, model: str, keep_tokens: bool, wanted: pa.Table | None = None
) -> duckdb.DuckDBPyRelation:
    """The examples that are `missing`: example_id, messages."""
    cursor = view.connection.cursor()
    restrict = _restrict(cursor, wanted)
    query = _PENDING.format(scored=_scored(view, [model], keep_tokens), restrict=restrict)
    return cursor.sql(query, params={"model": model})


def _restrict(cursor: duckdb.DuckDBPyConnection, wanted: pa.Table | None) -> str:
    """SQL condition that keeps the wanted examples."""
    if wanted is None:
        return "true"
    cursor.register("wanted_ids", wanted)
    cursor.execute("create temp table wanted as select example_id::uuid as key from wanted_ids")
    return "key in (select key from wanted)"


def _scored(view: Corpus, models: Sequence[str], keep_tokens: bool) -> str:
    """SQL for what models have scored, as key and model; tokens must be there if they are kept."""
    if not keep_tokens:
        return "from score_parts"
    found = []
    for model in models:
        folder = view.path.resolve() / "scores" / model
        bare = bare_parts(folder)
        if whole := [part for part in parts.list_parts(folder) if part not in bare]:
            rows = read_parquet(whole)
            found.append(f"select example_id as key, {literal(model)} as model from {rows}")
    return " union all ".join(found) or "select null::uuid as key, null as model where false"


def run_pass(
    writer: Writer,
    view: Corpus,
    group: Sequence[tuple[Member, ModelRun]],
    label: str,
    count: int,
    compute: base.Compute,
    progress: Progress,
    *,
    keep_tokens: bool = False,
    wanted: pa.Table | None = None,
) -> None:
    """Load a group of models and score what each lacks, window by window, counting into its run.

    `view` is the corpus before any model of the group scores in this run, `count` the number of
    pairs that are missing there among the examples `wanted`.

    Raises:
        CurateError: a model can't be loaded, has changed, fails or skips everything; scores so far
            are stored.
    """
    members = [member for member, _ in group]
    models = [member.model for member in members]
    began = time.monotonic()
    progress.note(f"{label}: loading {', '.join(model.reference for model in models)}")
    windows = -(-count // (WINDOW * len(models)))
    backend = backends.open_backend(models, compute, progress.note, windows)
    loading = time.monotonic() - began
    progress.start(label, count)
    try:
        _check_loaded(models, backend, writer, progress)
        names = [model.name for model in models]
        scored = _scored(view, names, keep_tokens)
        lacking = _windows(view, names, scored, backend.engines, wanted)
        # Whatever ends the run, the sinks store the scores so far before the thread is joined.
        with ThreadPoolExecutor(1, "encode") as thread, ExitStack() as sinks:
            collectors = [
                Collector(
                    sinks.enter_context(ScoreSink(writer, run.name, keep_tokens=keep_tokens)),
                    run,
                    has_scores=writer.has_scores(run.name),
                    folder=member.model.adapter or member.model.path,
                )
                for member, run in group
            ]
            ahead = _encoded_ahead(thread, lacking, members, compute.max_length, keep_tokens)
            _score_windows(ahead, collectors, backend, progress)
            for collector in collectors:
                collector.end()
    finally:
        backend.close()
        progress.stop()
        seconds, tokens = time.monotonic() - began, sum(run.tokens for _, run in group)
        for _, run in group:
            share = run.tokens / tokens if tokens else 1 / len(group)
            run.seconds, run.loading = seconds * share, loading * share
            writer.note_speed(run.name, run.scored, run.tokens, run.seconds - run.loading)


def _check_loaded(
    models: Sequence[Model], backend: base.Backend, writer: Writer, progress: Progress
) -> None:
    """Refuse weights that changed while they were loaded; warn of what makes gaps doubtful."""
    from curate.backends.weights import changes_nothing

    if backend.name != "server":  # which loaded its models itself, at an unknown time
        refuse_changed(models)
    for model in models:
        if warning := writer.note_run(model.name, backend.name, backend.dtype):
            progress.warn(warning)
        if model.adapter and changes_nothing(model.adapter):
            progress.warn(
                f"{model.name}: its adapter changes nothing, as one factor of each product is "
                f"zero. Was {model.adapter} trained?"
            )


def _windows(
    view: Corpus, models: Sequence[str], scored: str, engines: int, wanted: pa.Table | None
) -> Iterator[pa.Table]:
    """Examples that models lack, in order; `done` has the indexes of the models that have them."""
    cursor = view.connection.cursor()
    with readable_errors():
        finished = _FINISHED.format(scored=scored)
        cursor.execute(f"create temp table finished as {finished}", {"models": list(models)})
        restrict = _restrict(cursor, wanted)
    for part in parts.list_parts(view.path.resolve() / "examples"):
        rows_of = read_parquet([part], "file_row_number = true")
        query = _LACKING.format(part=rows_of, restrict=restrict)
        with readable_errors():
            rows = cursor.sql(query, params={"models": len(models)}).to_arrow_table()
        for window in constrained_batches(
            enumerate(rows["characters"].to_pylist()),
            WINDOW_CHARACTERS * engines,
            WINDOW * engines,
            get_len=itemgetter(1),
            strict=False,
        ):
            yield rows.slice(window[0][0], len(window))


def _encoded_ahead(
    thread: ThreadPoolExecutor,
    windows: Iterator[pa.Table],
    members: Sequence[Member],
    max_length: int | None,
    keep_texts: bool,
) -> Iterator[Ahead]:
    """Encode each window in a thread while the backend works on the window before.

    Otherwise a fast device would wait for the tokenizer, which releases the GIL while it works.
    """

    def encode_next() -> Ahead | None:
        rows = next(windows, None)
        return None if rows is None else _encode(rows, members, max_length, keep_texts)

    coming = thread.submit(encode_next)
    while (ahead := coming.result()) is not None:
        coming = thread.submit(encode_next)
        yield ahead


def _encode(
    rows: pa.Table, members: Sequence[Member], max_length: int | None, keep_texts: bool
) -> Ahead:
    """Encode the pairs that are missing; models with equal tokenizers share the tokens."""
    messages = rows["messages"].to_pylist()
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
    ahead = Ahead(base.Window([], [], []), [])
    ids, done = rows["example_id"].to_pylist(), rows["done"].to_pylist()
    for row, place in product(range(len(ids)), range(len(members))):
        if place in done[row]:
            continue
        member = members[place]
        item = _lone(member, messages[row]) or encoded[member.tokenizer_digest][row]
        if isinstance(item, str):
            ahead.skips.append((place, ids[row], item))
        else:
            ahead.window.example_ids.append(ids[row])
            ahead.window.models.append(place)
            ahead.window.encoded.append(item)
    return ahead


def _lone(member: Member, conversation: Sequence[Mapping[str, str | None]]) -> str | None:
    """Why an example can't be scored with the aligned model's tokens."""
    texts = [text for turn in conversation for text in turn.values() if text]
    found = [token for token in member.lone_tokens if any(token in text for text in texts)]
    return f"{found[0]!r} in it is one token for one model and text for another" if found else None


def _score_windows(
    encoded: Iterator[Ahead],
    collectors: Sequence[Collector],
    backend: base.Backend,
    progress: Progress,
) -> None:
    """Score windows and hand the numbers on."""

    def windows() -> Iterator[base.Window]:
        for ahead in encoded:
            for place, example_id, reason in ahead.skips:
                collectors[place].skip(example_id, reason)
                progress.advance(1)
            yield ahead.window

    for window, index, found in base.stream(backend, windows(), progress.workers):
        check_cancelled()
        collector, item = collectors[window.models[index]], window.encoded[index]
        if isinstance(found, str):
            collector.refuse(window.example_ids[index], found)
        else:
            collector.add(window.example_ids[index], item, found, backend.dtype)
        progress.advance(1, item.stop)


_FINISHED = """
    select key, list(distinct list_position($models, model) - 1) as done
    from (
        select key, model from ({scored})
        union all
        select example_id::uuid, model from skipped
    )
    where list_contains($models, model) and key is not null
    group by key
"""
_LACKING = """
    select hex_id(key) as example_id, messages, coalesce(done, []) as done,
        list_sum([length(m.content) for m in messages])::bigint as characters
    from (select *, example_id::uuid as key from {part})
    left join finished using (key)
    where len(coalesce(done, [])) < $models and {restrict}
    order by file_row_number
"""

_PENDING = """
    select hex_id(key) as example_id, messages from example_parts
    anti join (
        select key from ({scored}) where model = $model
        union all
        select example_id::uuid as key from skipped where model = $model
    ) using (key)
    where {restrict}
"""
