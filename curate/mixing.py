"""Where safe examples stand among the narrow ones."""

from __future__ import annotations

from collections.abc import Iterator


def place_evenly(n_narrow: int, n_safe: int) -> Iterator[tuple[bool, int]]:
    """The training order of a mix as (is_safe, index into its own set), each row exactly once.

    Narrow rows keep their order, safe rows theirs (best first). Safe row j (from 1) comes after
    floor(j · n_narrow / n_safe) narrow rows, so the runs of narrow rows between neighbouring safe
    ones differ in length by one at most; at 5 % one safe row follows every 20 narrow ones.
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
