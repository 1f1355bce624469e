"""Where safe rows stand: every kind of placement keeps its promise for any two numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from curate.export.mix import place_at_random, place_evenly, place_in_batches

COUNTS = st.integers(0, 300)


def whole(placed: Iterable[tuple[bool, int]], n_narrow: int, n_safe: int) -> list[tuple[bool, int]]:
    """The order as a list, every row in it exactly once and narrow ones in their order."""
    order = list(placed)
    assert sorted(index for safe, index in order if safe) == list(range(n_safe))
    assert [index for safe, index in order if not safe] == list(range(n_narrow))
    return order


@given(n_narrow=COUNTS, n_safe=COUNTS)
def test_even_distances_differ_by_one_at_most(n_narrow: int, n_safe: int) -> None:
    """Best first, at equal distances."""
    order = whole(place_evenly(n_narrow, n_safe), n_narrow, n_safe)
    assert [index for safe, index in order if safe] == list(range(n_safe))
    places = [-1] + [place for place, (safe, _) in enumerate(order) if safe]
    distances = {after - before for before, after in pairwise(places)}
    assert not distances or max(distances) - min(distances) <= 1


@given(n_narrow=COUNTS, n_safe=COUNTS, size=st.integers(1, 50))
def test_every_batch_holds_its_share(n_narrow: int, n_safe: int, size: int) -> None:
    """To within one row, the last and shorter batch included."""
    order = whole(place_in_batches(n_narrow, n_safe, size), n_narrow, n_safe)
    assert [index for safe, index in order if safe] == list(range(n_safe))
    total = n_narrow + n_safe
    so_far = 0
    batches = (order[start : start + size] for start in range(0, total, size))
    for number, batch in enumerate(batches, 1):
        count = sum(safe for safe, _ in batch)
        assert abs(count - len(batch) * n_safe / total) < 1
        so_far += count
        assert abs(so_far - min(number * size, total) * n_safe / total) <= 0.5


@given(n_narrow=COUNTS, n_safe=COUNTS, seed=st.integers(0, 5))
def test_random_places_depend_on_the_seed_alone(n_narrow: int, n_safe: int, seed: int) -> None:
    """Narrow rows keep their order there too."""
    order = whole(place_at_random(n_narrow, n_safe, seed), n_narrow, n_safe)
    assert order == list(place_at_random(n_narrow, n_safe, seed))


def test_random_places_are_spread_and_stay_the_same() -> None:
    """The draw is part of what a manifest promises: it may never change."""
    order = list(place_at_random(12, 4, 0))
    assert [(place, index) for place, (safe, index) in enumerate(order) if safe] == [
        (3, 1), (7, 3), (12, 2), (15, 0)
    ]  # fmt: skip
    assert order != list(place_at_random(12, 4, 1))
    halves = [sum(safe for safe, _ in list(place_at_random(900, 100, n))[:500]) for n in range(50)]
    assert 45 < sum(halves) / len(halves) < 55
