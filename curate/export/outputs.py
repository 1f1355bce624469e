"""A mix -> its files, there whole or not at all: data, a trainer's files, card and manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export import tokens
from curate.export.mix import Mix, make, probabilities, rows_in
from curate.export.target import Output
from curate.formats import FORMATS, TRAINERS
from curate.formats.base import Plan, text_format
from curate.formats.card import card
from curate.formats.files import WRITERS
from curate.formats.openai import MAX_BYTES, MIN_EXAMPLES
from curate.models.fetch import at_commit, tokenizer_folder
from curate.reading.narrow import Narrow, for_one_schema
from curate.storage import parts
from curate.system import buckets, scratch


@dataclass(frozen=True)
class Files:
    """The files of an export: `staged` is where each is while they are written.

    `sha256` has every file but the manifest, in the order in which they were written.
    """

    place: Output
    mix: Mix
    counter: tokens.Counter
    seed: int
    staged: Callable[[str], Path] = Path
    sha256: dict[str, str] = field(default_factory=dict)

    def add_manifest(self, record: dict[str, Any]) -> None:
        """Write the manifest, the last of the files."""
        text = orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        self.staged(self.place.manifest.name).write_bytes(text)

    def add_rows(self) -> None:
        """Write the data: one file in training order, or both sets apart."""
        place, mix = self.place, self.mix
        orders = [[(False, index) for index in range(len(mix.narrow.rows))], mix.order]
        for name, order in zip(place.files, orders[-len(place.files) :], strict=True):
            path = self.staged(name)
            WRITERS[place.ending](rows_in(mix, order), mix.schema, path)
            if mix.format.name == "openai" and path.stat().st_size > MAX_BYTES:
                raise CurateError(f"{place}: larger than the API's {MAX_BYTES:,} bytes a file")
            self._note(name)

    def add_texts(self, model: str, revision: str | None) -> None:
        """Write what stands beside the data in a folder: the card, and the trainer's files."""
        place, mix = self.place, self.mix
        n_narrow, n_safe = len(mix.narrow.rows), len(mix.safe)
        shares = probabilities(n_narrow, n_safe) if len(place.files) == 2 else (1.0,)
        run = mix.trainer.run if mix.trainer else ""
        texts = {
            "README.md": card(place.files, shares, (n_narrow + n_safe, n_safe), self.seed, run)
        }
        if mix.trainer:
            rows = [*(row.messages for row in mix.narrow.rows), *(each for _, each in mix.safe)]
            plan = Plan(
                model=model,
                revision=revision,
                format=mix.format.name,
                files=place.files,
                shares=shares,
                longest=tokens.longest(self.counter, rows),
                seed=self.seed,
                batch_size=place.target.batch_size,
                columns=frozenset(mix.columns),
                keys=frozenset(mix.keys),
            )
            texts |= mix.trainer.files(plan)
        for name, text in texts.items():
            self.staged(name).write_bytes(text.encode())
            self._note(name)

    def _note(self, name: str) -> None:
        with self.staged(name).open("rb") as file:
            self.sha256[name] = hashlib.file_digest(file, "sha256").hexdigest()


def plan(corpus: Corpus, place: Output, seed: int, narrow: Narrow, safe: pa.Table) -> Files:
    """The files of an export, none of them written; `safe` has example_id and messages, best first.

    Raises:
        CurateError: both sets don't go together, or into this format.
    """
    trainer = TRAINERS[place.target.trainer] if place.target.trainer else None
    needed = narrow.rows or trainer or place.format == "text"
    counter = tokens.open_counter(corpus) if needed else tokens.Counter()
    chosen = (
        text_format(counter.write, counter.reads)
        if place.format == "text"
        else FORMATS[place.format]
    )
    if trainer or place.ending == ".parquet":
        narrow = for_one_schema(narrow)
    pairs = list(zip(safe["example_id"].to_pylist(), safe["messages"].to_pylist(), strict=True))
    mix = make(narrow, pairs, place.target, chosen, trainer, seed)
    n_rows = len(narrow.rows) + len(pairs)
    if chosen.name == "openai" and n_rows < MIN_EXAMPLES:
        raise CurateError(
            f"{place}: {n_rows} rows, and the fine-tuning API takes no fewer than {MIN_EXAMPLES}"
        )
    return Files(place, mix, counter, seed)


@contextmanager
def writing(corpus: Corpus, planned: Files) -> Iterator[Files]:
    """Write all files but the manifest, which is added inside; then all take their names together.

    Raises:
        CurateError: a row fits neither format nor trainer, or the disk is full. What was there
            before then stays as it was.
    """
    with _staged(planned.place) as staged:
        files = replace(planned, staged=staged)
        files.add_rows()
        if files.place.folder:
            files.add_texts(*_aligned_model(corpus))
        yield files


@contextmanager
def _staged(place: Output) -> Iterator[Callable[[str], Path]]:
    """Temporary places by name: a folder, or a file with its manifest, or what is uploaded."""
    if place.address:
        with scratch.temporary("export") as folder:
            yield folder.joinpath
            names = [each.name for each in folder.iterdir() if each.name != place.manifest.name]
            files = {name: folder / name for name in (*sorted(names), place.manifest.name)}
            top = place.address if place.folder else place.address.rpartition("/")[0]
            buckets.upload(top, files)
        return
    if place.folder:
        with parts.atomic_folder(place.path) as folder:
            yield folder.joinpath
        return
    paths = [place.manifest, place.path]
    with parts.atomic_together(*paths) as temporaries:
        by_name = {path.name: each for path, each in zip(paths, temporaries, strict=True)}
        yield by_name.__getitem__


def _aligned_model(corpus: Corpus) -> tuple[str, str | None]:
    """The aligned model's hub id with its commit, or its folder as an absolute path.

    A folder of a repository is one of the local cache: trainers have no option for it.
    """
    entry = corpus.manifest.aligned
    if entry is None:
        return "", None
    at = at_commit(entry.reference, entry.commit)
    if at.repo is None:
        path = Path(entry.reference)
        return str(path.resolve()) if path.is_dir() else entry.reference, None
    if at.folder:
        return str(tokenizer_folder(entry.reference, entry.commit)), None
    return at.repo.id, entry.commit
