"""Races: most passes are saved, a kill changes nothing, and what was left behind is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import curate
from curate import backends
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model
from tests.files import write
from tests.tiny import tiny_adapter, tiny_model

COUNT = 3_000
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three adapters over it."""
    root = tmp_path_factory.mktemp("family")
    tiny_model(root / "base")
    for seed, name in enumerate(NAMES):
        tiny_adapter(root / "base", root / name, seed=seed)
    return root


class Drawn:
    """A backend whose losses are drawn by example; models' gaps correlate at 0.9."""

    name, dtype, engines = "drawn", "float32", 1

    def __init__(self, names: Sequence[str], limit: int | None) -> None:
        self.names, self.limit = names, limit

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Give every answer token the example's loss under its model."""
        for index, item in enumerate(encoded):
            if self.limit is not None:
                self.limit -= 1
                if self.limit < 0:
                    raise KeyboardInterrupt
            name = self.names[models[index]] if models else self.names[0]
            value = loss(hash(tuple(item.ids)), name)
            yield index, np.full(item.stop - item.start, -value, np.float32)

    def close(self) -> None:
        """Nothing to give back."""


def loss(seed: int, name: str) -> float:
    """An example's loss under a model."""
    shared, *own = np.random.default_rng(seed % 2**32).standard_normal(1 + len(NAMES))
    if name == "base":
        return 1.0
    return float(2 + 0.3 * shared + 0.1 * own[NAMES.index(name)])


class Race:
    """Scores `tmp_path/c` by drawn losses, `limit` pairs at most before a kill."""

    def __init__(self, family: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.family, self.folder, self.limit = family, folder, None
        rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(COUNT)]
        self.source = write(folder / "pool.jsonl", rows)
        patch.setattr(backends, "open_backend", self._open)

    def _open(self, group: Sequence[Model], *_: object) -> Drawn:
        return Drawn([model.name for model in group], self.limit)

    def score(self, *names: str, to: str = "c", limit: int | None = None, **asked: Any) -> Any:
        """Score the pool under the base and these, all by default."""
        self.limit = limit  # type: ignore[assignment]
        return curate.score(
            [str(self.source)],
            self.folder / to,
            aligned=str(self.family / "base"),
            misaligned=[str(self.family / name) for name in names or NAMES],
            **asked,
        )

    def ask(self, query: str, of: str = "c") -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return curate.open(self.folder / of).sql(query).fetchall()


@pytest.fixture
def race(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Race:
    """A pool of 3,000 examples, and a way to score it."""
    return Race(family, tmp_path, monkeypatch)


def test_a_race_finds_the_top_in_fewer_passes(race: Race) -> None:
    """The true recall is in the interval; a run without --top completes the corpus."""
    found = race.score(top=0.05).race
    assert found.top == 150
    assert found.passes < 0.8 * found.full
    raced = {row for (row,) in race.ask("select example_id from gaps")}
    counts = race.ask("select count(*) from scores")
    assert counts == [(found.passes,)]
    assert race.score().race is None
    best = {row for (row,) in race.ask("select example_id from gaps where rank <= 150")}
    assert race.ask("select count(*) from gaps") == [(COUNT,)]
    recall = len(best & raced) / 150
    assert found.recall.low <= recall <= found.recall.high
    assert recall > 0.97
    assert curate.open(race.folder / "c").manifest.race is None


def test_killed_in_any_stage_a_race_resumes_to_the_same(race: Race) -> None:
    """The scores are those of an undisturbed race, each once."""
    pairs = "select example_id, model from scores order by all"
    race.score(top=0.05, to="whole")
    for limit in (500, 1_500, 2_000, 600, 100):
        with pytest.raises(KeyboardInterrupt):
            race.score(top=0.05, limit=limit)
    with pytest.raises(CurateError, match=r"--top 0\.1: the unfinished race uses 0\.05"):
        race.score(top=0.1)
    race.score(top=0.05)
    assert race.ask(pairs) == race.ask(pairs, "whole")


def test_only_scores_what_a_condition_chooses(race: Race) -> None:
    """A wrong one leaves the corpus as it was; a run without it completes the corpus."""
    race.score("one")
    with pytest.raises(CurateError, match="--only"):
        curate.score(
            [], race.folder / "c", misaligned=[str(race.family / "two")], only="nothing = 1"
        )
    assert race.ask("select count(*) from gaps") == [(COUNT,)]
    race.limit = None
    curate.score([], race.folder / "c", misaligned=[str(race.family / "two")], only="rank <= 7")
    assert race.ask("select count(*) from scores where model = 'two'") == [(7,)]
    assert race.ask("select count(*) from gaps") == [(7,)]
    curate.score([], race.folder / "c")
    assert race.ask("select count(*) from gaps") == [(COUNT,)]
