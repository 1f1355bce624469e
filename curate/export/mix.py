"""A narrow and a safe set -> the rows of a mix, in training order and with one schema."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import pyarrow as pa

from curate.errors import CurateError
from curate.export.target import Target
from curate.formats.base import Format, Messages, Trainer, Unfit
from curate.reading.narrow import Narrow, answers
from curate.storage.schema import REASONING

WEIGHT = "weight"
Order = Sequence[tuple[bool, int]]
"""A mix in training order: (is_safe, index into its own set), each row exactly once."""


@dataclass(frozen=True)
class Mix:
    """Both sets and how they are written; `safe` holds (example_id, messages), best first."""

    narrow: Narrow
    safe: Sequence[tuple[str, Messages]]
    format: Format
    trainer: Trainer | None
    order: Order

    @cached_property
    def reasons(self) -> bool:
        """Whether a safe row has reasoning."""
        return any(turn.get(REASONING) for _, messages in self.safe for turn in messages)

    @cached_property
    def keys(self) -> dict[str, pa.DataType]:
        """The turns' keys that the format has a place for."""
        found = self.narrow.keys | ({REASONING: pa.string()} if self.reasons else {})
        return {key: kind for key, kind in found.items() if self.format.keeps(key)}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns beside the conversation that the format has a place for."""
        kept = self.format.columns
        columns = self.narrow.columns.items()
        return {name: kind for name, kind in columns if kept is None or name in kept}

    @property
    def schema(self) -> pa.Schema:
        """The one schema of every row."""
        return pa.schema([*self.format.fields(self.keys), *self.columns.items()])

    @property
    def safe_lines(self) -> list[int]:
        """At which row (from 1) of the mix each safe example stands, in the order of `safe`."""
        lines = [0] * len(self.safe)
        for line, (is_safe, index) in enumerate(self.order, 1):
            if is_safe:
                lines[index] = line
        return lines


def make(
    narrow: Narrow,
    safe: Sequence[tuple[str, Messages]],
    target: Target,
    chosen: Format,
    trainer: Trainer | None,
    seed: int,
) -> Mix:
    """Place the safe rows; both sets stay apart where the trainer interleaves them.

    Raises:
        CurateError: a narrow column has a name to which the format or trainer gives a meaning.
    """
    n_narrow, n_safe = len(narrow.rows), len(safe)
    order: Iterable[tuple[bool, int]] = place_evenly(n_narrow, n_safe)
    if target.placement == "batch":
        order = place_in_batches(n_narrow, n_safe, target.batch_size or 1)
    elif target.placement == "shuffle":
        order = place_at_random(n_narrow, n_safe, seed)
    elif target.placement == "separate":
        order = ((True, index) for index in range(n_safe))
    mix = Mix(narrow, safe, chosen, trainer, list(order))
    _check_names(mix)
    return mix


def rows_in(mix: Mix, order: Order) -> Iterator[dict[str, Any]]:
    """The rows that stand in an order.

    Raises:
        CurateError: the format or the trainer has no place for one of them.
    """
    return (_safe_row(mix, index) if safe else _narrow_row(mix, index) for safe, index in order)


def trained_answers(mix: Mix, messages: Messages) -> list[int]:
    """Where the answers stand that the trainer takes the loss on."""
    places = answers(messages)
    if mix.format.name == "openai" or (mix.trainer and WEIGHT in mix.trainer.reads):
        places = [at for at in places if messages[at].get(WEIGHT) in (None, 1, True)]
    return places[-1:] if mix.format.trains_on == "last" else places


def notes(mix: Mix) -> list[str]:
    """What the rows' fields became, one line each."""

    def named(columns: Iterable[str], keys: Iterable[str]) -> list[str]:
        return [*columns, *(f"the turns' {key}" for key in keys)]

    lines = list(mix.narrow.notes)
    reasons = {REASONING} if mix.reasons else set[str]()
    if kept := named(mix.columns, (key for key in mix.keys if key not in reasons)):
        lines.append(f"kept, and null in selected rows: {', '.join(kept)}")
    if reasons & mix.keys.keys():
        lines.append(f"kept: the selected rows' {REASONING}")
    whole = named(mix.narrow.columns, mix.narrow.keys | dict.fromkeys(reasons))
    if lost := [name for name in whole if name not in named(mix.columns, mix.keys)]:
        lines.append(f"left out, as {mix.format.name} has no place for: {', '.join(lost)}")
    if mix.trainer and (unread := [key for key in mix.keys if key not in mix.trainer.reads]):
        lines.append(f"in the file, but {mix.trainer.title} does not read: {', '.join(unread)}")
    several = sum(len(answers(row.messages)) > 1 for row in mix.narrow.rows)
    if several and mix.format.trains_on == "last":
        lines.append(
            f"{several} narrow rows hold several answers, and {mix.format.name} trains on the last "
            "alone; --format messages trains on all"
        )
    return lines


def _narrow_row(mix: Mix, index: int) -> dict[str, Any]:
    row = mix.narrow.rows[index]
    try:
        made = _row(mix, row.messages, row.others)
    except Unfit as unfit:
        raise CurateError(f"{row.place}: {unfit}; choose another --format or --trainer") from None
    if mix.format.name == "alpaca" and row.alpaca:
        made["instruction"], made["input"] = row.alpaca
    return made


def _safe_row(mix: Mix, index: int) -> dict[str, Any]:
    example_id, messages = mix.safe[index]
    try:
        return _row(mix, messages, {})
    except Unfit as unfit:
        raise CurateError(
            f"the safe example {example_id}: {unfit}; to leave such examples out: "
            '--where "len(messages) = 2"'
        ) from None


def _row(mix: Mix, messages: Messages, others: dict[str, Any]) -> dict[str, Any]:
    if mix.trainer:
        mix.trainer.check(messages)
    made = mix.format.row(messages, mix.keys)
    values = {name: others.get(name) for name in mix.columns}
    if not mix.format.nulls:
        values = {name: value for name, value in values.items() if value is not None}
    return made | values


def _check_names(mix: Mix) -> None:
    fields = {field.name for field in mix.format.fields({})}
    meant = fields | mix.format.meant | (mix.trainer.meant if mix.trainer else set())
    reader = mix.trainer.title if mix.trainer else f"readers of {mix.format.name}"
    for name in mix.columns:
        if name in meant:
            raise CurateError(
                f"the narrow set's column {name!r} isn't part of its conversations, but {reader} "
                "would take it for one: rename it"
            )


def place_evenly(n_narrow: int, n_safe: int) -> Iterator[tuple[bool, int]]:
    """Narrow rows in their order, safe rows (best first) at equal distances among them.

    Safe row j (from 1) comes after floor(j · n_narrow / n_safe) narrow rows, so the runs of
    narrow rows between neighboring safe ones differ in length by one at most; at 5 % one safe
    row follows every 20 narrow ones.
    """
    narrow = 0
    for safe in range(n_safe):
        until = (safe + 1) * n_narrow // n_safe
        yield from ((False, index) for index in range(narrow, until))
        narrow = until
        yield True, safe
    yield from ((False, index) for index in range(narrow, n_narrow))


def place_in_batches(n_narrow: int, n_safe: int, size: int) -> Iterator[tuple[bool, int]]:
    """Every batch of `size` consecutive rows holds its share of safe rows, to within one row.

    The share is that of the whole mix, the last and shorter batch included; what the batches so
    far hold is always the share of their rows, rounded half up. Both sets keep their order.
    """
    total = n_narrow + n_safe
    narrow = safe = 0
    for start in range(0, total, size):
        stop = min(start + size, total)
        until = (2 * stop * n_safe + total) // (2 * total)  # round half up, in whole numbers
        n_batch_safe = until - safe
        n_batch_narrow = stop - start - n_batch_safe
        for is_safe, index in place_evenly(n_batch_narrow, n_batch_safe):
            yield is_safe, index + (safe if is_safe else narrow)
        safe, narrow = until, narrow + n_batch_narrow


def place_at_random(n_narrow: int, n_safe: int, seed: int) -> Iterator[tuple[bool, int]]:
    """Safe rows at random places and in random order; narrow rows keep theirs.

    A seed gives the same places with every version of Python: `random.Random.random` is the one
    generator whose sequence the language promises to keep.
    """
    draw = random.Random(seed)
    keys = [draw.random() for _ in range(n_narrow + n_safe)]
    places = sorted(range(len(keys)), key=keys.__getitem__)[:n_safe]
    safe_at = {place: index for index, place in enumerate(places)}
    narrow = count()
    for place in range(len(keys)):
        yield (True, safe_at[place]) if place in safe_at else (False, next(narrow))


def probabilities(n_narrow: int, n_safe: int) -> tuple[float, float]:
    """How often a trainer that interleaves by itself should draw from (narrow, safe)."""
    return n_narrow / (n_narrow + n_safe), n_safe / (n_narrow + n_safe)
