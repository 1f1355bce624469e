"""What a trainer is: the formats it reads, and the files that make it train on a mix as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from curate.formats.format import Messages


@dataclass(frozen=True)
class Plan:
    """What a trainer's files are made from.

    `files` are the data files beside them: one, or the narrow set's and the safe set's where the
    trainer interleaves them, with their `shares` of the whole (they sum to 1). `model` is the
    aligned model's folder or hub id; `longest` the most tokens a row can have; `seed` of whatever
    the trainer draws; `batch_size` rows an optimiser step, where one was named; `columns` and
    turns' `keys` those that the narrow set brought.
    """

    model: str
    format: str
    files: tuple[str, ...]
    shares: tuple[float, ...]
    longest: int
    seed: int
    batch_size: int | None
    columns: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @property
    def separate(self) -> bool:
        """Whether the trainer interleaves the sets itself."""
        return len(self.files) == 2

    @property
    def reader(self) -> str:
        """The name that `datasets` has for the files' kind."""
        return "parquet" if self.files[0].endswith(".parquet") else "json"


@dataclass(frozen=True)
class Trainer:
    """A trainer family: formats it reads (the first is the default) and its files.

    `files` gives names and texts; `check` raises `Unfit` for a conversation the trainer would
    drop; `meant` are columns and `reads` turn keys to which the trainer gives a meaning.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    files: Callable[[Plan], dict[str, str]]
    run: str
    check: Callable[[Messages], None] = lambda messages: None
    meant: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()


def quoted(value: str | float | bool | None) -> str:
    """A YAML scalar: JSON's are YAML's too."""
    return json.dumps(value, ensure_ascii=False)
