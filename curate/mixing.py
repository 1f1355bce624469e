"""Where safe examples stand among the narrow ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

Order = Sequence[tuple[bool, int]]
"""A mix in training order: (is_safe, index into its own set), each row exactly once."""


def place_evenly(n_narrow: int, n_safe: int) -> Iterator[tuple[bool, int]]:
    """Narrow rows in their order, safe rows (best first) at equal distances among them.

    Safe row j (from 1) comes after floor(j · n_narrow / n_safe) narrow rows, so the runs of
    narrow rows between neighbouring safe ones differ in length by one at most; at 5 % one safe
    row follows every 20 narrow ones.
    """
    narrow = 0
    for safe in range(n_safe):
        until = (safe + 1) * n_narrow // n_safe
        for index in range(narrow, until):
            yield False, index
        narrow = until
        yield True, safe
    for index in range(narrow, n_narrow):
        yield False, index


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
    narrow = 0
    for place in range(len(keys)):
        if place in safe_at:
            yield True, safe_at[place]
        else:
            yield False, narrow
            narrow += 1


def probabilities(n_narrow: int, n_safe: int) -> tuple[float, float]:
    """How often a trainer that interleaves by itself should draw from (narrow, safe)."""
    return n_narrow / (n_narrow + n_safe), n_safe / (n_narrow + n_safe)
