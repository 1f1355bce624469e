"""A mix -> its files, there whole or not at all: data, a trainer's files, card and manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import tokens
from curate.export.mix import Mix, make, mixed_rows, narrow_rows, probabilities
from curate.export.target import MANIFEST, Output
from curate.formats import FORMATS, TRAINERS
from curate.formats.base import Format, Messages, Plan, text_format
from curate.formats.card import card
from curate.formats.files import WRITERS
from curate.formats.openai import MAX_BYTES, MIN_EXAMPLES
from curate.reading.narrow import Narrow
from curate.storage import parts

Record = dict[str, Any]
LeftOut = Callable[[Path], object] | None


@dataclass
class Written:
    """What is written: the mix, its place, the SHA-256 of each file, and its counts."""

    corpus: Corpus
    place: Output
    mix: Mix
    seed: int
    counter: tokens.Counter
    sha256: dict[str, str]

    @cached_property
    def trained(self) -> dict[str, Any]:
        """Sizes of the answers trained on, of both sets, in tokens or bytes; and notes."""
        return tokens.trained(self.counter, self.corpus, self.mix)


def write(
    corpus: Corpus,
    place: Output,
    seed: int,
    narrow: Narrow,
    safe: Sequence[tuple[str, Messages]],
    record: Callable[[Written], Record],
    left_out: LeftOut,
) -> Record:
    """Write everything; `record` makes the manifest once the data is written.

    `left_out` fills the list of rows that were not taken; None where there is none.

    Raises:
        CurateError: a row fits neither format nor trainer, or the disk is full. What was there
            before then stays as it was.
    """
    needs = bool(narrow.rows) or place.target.trainer or place.format == "text"
    counter = tokens.open_counter(corpus) if needs else tokens.Counter("bytes")
    trainer = TRAINERS[place.target.trainer] if place.target.trainer else None
    mix = make(narrow, safe, place.target, _format(place, counter), trainer, seed)
    _check_number(place, mix)
    written = Written(corpus, place, mix, seed, counter, {})
    return (_write_folder if place.folder else _write_file)(written, record, left_out)


def _write_file(written: Written, record: Callable[[Written], Record], left_out: LeftOut) -> Record:
    """One file of rows, its list and its manifest: all on the disk before one takes its name."""
    place, mix = written.place, written.mix
    paths = [place.manifest, *([place.left_out] if left_out else []), place.path]
    with parts.atomic_together(*paths) as (manifest, *listed, data):
        _write_data(written, place.path.name, mixed_rows(mix), data)
        if left_out:
            _write_list(written, left_out, listed[0])
        made = record(written)
        manifest.write_text(_json(made), encoding="utf-8")
    if not left_out:  # that of an export which this one replaces
        place.left_out.unlink(missing_ok=True)
    return made


def _write_folder(
    written: Written, record: Callable[[Written], Record], left_out: LeftOut
) -> Record:
    """The rows, in one file or two, with the trainer's files, card, list and manifest."""
    place, mix = written.place, written.mix
    with parts.atomic_folder(place.path) as temporary:
        rows = {place.files[-1]: mixed_rows(mix)}
        if len(place.files) == 2:
            rows = {place.files[0]: narrow_rows(mix)} | rows
        for name, each in rows.items():
            _write_data(written, name, each, temporary / name)
        for name, text in _texts(written).items():
            (temporary / name).write_text(text, encoding="utf-8")
            written.sha256[name] = _sha256(temporary / name)
        if left_out:
            _write_list(written, left_out, temporary / place.left_out.name)
        made = record(written)
        (temporary / MANIFEST).write_text(_json(made), encoding="utf-8")
    return made


def _write_data(written: Written, name: str, rows: Iterable[dict[str, Any]], path: Path) -> None:
    place, mix = written.place, written.mix
    WRITERS[place.ending](rows, mix.schema, path)
    if mix.format.name == "openai" and path.stat().st_size > MAX_BYTES:
        raise CurateError(f"{place.path}: larger than the API's {MAX_BYTES:,} bytes a file")
    written.sha256[name] = _sha256(path)


def _write_list(written: Written, fill: Callable[[Path], object], path: Path) -> None:
    fill(path)
    written.sha256[written.place.left_out.name] = _sha256(path)


def _texts(written: Written) -> dict[str, str]:
    """The files beside the data: the card, and the trainer's."""
    place, mix = written.place, written.mix
    n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
    apart = len(place.files) == 2
    shares = probabilities(n_narrow, n_safe) if apart else (1.0,)
    run = mix.trainer.run if mix.trainer else ""
    texts = {"README.md": card(place.files, shares, (n_narrow + n_safe, n_safe), written.seed, run)}
    if mix.trainer:
        plan = Plan(
            model=tokens.aligned_model(written.corpus),
            format=mix.format.name,
            files=place.files,
            shares=shares,
            longest=_longest(written),
            seed=written.seed,
            batch_size=place.target.batch_size,
            columns=frozenset(mix.columns),
            keys=frozenset(mix.keys),
        )
        texts |= mix.trainer.files(plan)
    return texts


def _longest(written: Written) -> int:
    mix = written.mix
    conversations = [*(row.messages for row in mix.narrow.rows), *(each for _, each in mix.safe)]
    return tokens.longest(written.counter, conversations)


def _format(place: Output, counter: tokens.Counter) -> Format:
    if place.format != "text":
        return FORMATS[place.format]
    if counter.write is None:
        raise CurateError(f"--format text needs the aligned model's template: {counter.why}")
    return text_format(counter.write)


def _check_number(place: Output, mix: Mix) -> None:
    rows = len(mix.narrow.rows) + len(mix.safe)
    if mix.format.name == "openai" and rows < MIN_EXAMPLES:
        raise CurateError(
            f"{place.path}: {rows} rows, and the fine-tuning API takes no fewer than {MIN_EXAMPLES}"
        )


def _json(record: Record) -> str:
    import orjson

    return orjson.dumps(record, option=orjson.OPT_INDENT_2).decode() + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
