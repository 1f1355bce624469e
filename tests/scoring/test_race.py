"""Races: most passes are saved, a kill changes nothing, and what was left behind is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import curate
from curate import backends
from curate.chat.encode import Encoded
from curate.corpus.show import status
from curate.errors import CurateError
from curate.models.resolve import Model
from tests.conftest import Cli, fails
from tests.files import write
from tests.tiny import tiny_adapter, tiny_model

COUNT, FEW = 2_000, 400
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
    """Scores `tmp_path/c` by drawn losses, `limit` of a model at most before a kill."""

    def __init__(
        self, family: Path, folder: Path, patch: pytest.MonkeyPatch, count: int = COUNT
    ) -> None:
        self.family, self.folder = family, folder
        self.limit: int | None = None
        rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(count)]
        self.source = write(family / f"pool-{count}.jsonl", rows)
        patch.setattr(backends, "open_backend", self._open)

    def _open(self, group: Sequence[Model], *_: object) -> Drawn:
        return Drawn([model.name for model in group], self.limit)

    def score(self, *names: str, to: str = "c", limit: int | None = None, **asked: Any) -> Any:
        """Score the pool under the base and these, all by default."""
        self.limit = limit
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
    """A pool of 2,000 examples, and a way to score it."""
    return Race(family, tmp_path, monkeypatch)


@pytest.fixture
def few(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Race:
    """The same for 400 examples."""
    return Race(family, tmp_path, monkeypatch, FEW)


@pytest.fixture(scope="module")
def raced(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of the pool, raced to its top; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        made = Race(family, tmp_path_factory.mktemp("raced"), patch)
        made.score(top=0.05)
    return made.folder / "c"


@pytest.fixture(scope="module")
def proxy(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of the pool under two models alone; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        made = Race(family, tmp_path_factory.mktemp("proxy"), patch)
        made.score("one", "two")
    return made.folder / "c"


def test_a_race_finds_the_top_in_fewer_passes(race: Race) -> None:
    """The true recall is in the interval; a run without --top completes the corpus."""
    told = " ".join(race.score(top=0.05, dry_run=True).read.notes)
    assert "A full run makes 8,000 passes, about 0:" in told
    assert "A race makes 57% of them or more, about 0:" in told
    found = race.score(top=0.05).race
    assert found.top == 100
    assert found.passes < 0.8 * found.full
    raced = {row for (row,) in race.ask("select example_id from gaps")}
    counts = race.ask("select count(*) from scores")
    assert counts == [(found.passes,)]
    assert race.score().race is None
    best = {row for (row,) in race.ask("select example_id from gaps where rank <= 100")}
    assert race.ask("select count(*) from gaps") == [(COUNT,)]
    recall = len(best & raced) / 100
    assert found.recall.low <= recall <= found.recall.high
    assert recall > 0.97
    assert curate.open(race.folder / "c").manifest.race is None


@pytest.mark.slow
def test_killed_in_any_stage_a_race_resumes_to_the_same(race: Race, raced: Path) -> None:
    """The scores are those of an undisturbed race, each once."""
    pairs = "select example_id, model from scores order by all"
    for limit in (150, 1_500, 1_500, 400, 120):  # one in each stage
        with pytest.raises(KeyboardInterrupt):
            race.score(top=0.05, limit=limit)
    for name, value in {"top": 0.1, "recall": 0.9, "seed": 7, "proxy": "p", "audit": 250}.items():
        with pytest.raises(CurateError, match=f"--{name} {value}: the unfinished race uses"):
            race.score(limit=0, **{"top": 0.05, name: value})
    race.score(top=0.05)
    assert race.ask(pairs) == curate.open(raced).sql(pairs).fetchall()


@pytest.mark.slow
def test_a_proxy_goes_before_the_first_model(race: Race, proxy: Path) -> None:
    """Most examples are then scored by no model of the corpus; a kill changes nothing."""
    proxy = shutil.copytree(proxy, race.folder / "p")
    found = race.score(top=0.05, proxy=proxy, to="whole").race
    assert found.passes < 0.5 * found.full
    assert found.recall.estimate > 0.97
    assert race.ask("select count(*) < 1000 from scores where model = 'base'", "whole") == [(True,)]
    for limit in (150, 200, 50):  # in the audit sample, then behind the proxy
        with pytest.raises(KeyboardInterrupt):
            race.score(top=0.05, proxy=proxy, limit=limit)
    race.score(top=0.05, proxy=proxy)
    pairs = "select example_id, model from scores order by all"
    assert race.ask(pairs) == race.ask(pairs, "whole")
    shutil.rmtree(proxy)
    assert status(curate.open(race.folder / "c"))["race"]["found"] == asdict(found.recall)


def test_how_deep_a_proxy_must_be_read(raced: Path, proxy: Path) -> None:
    """Of a raced corpus, its audit sample says so; a corpus is its own perfect proxy."""
    corpus = curate.open(raced)
    rows = corpus.query("proxy", other=str(proxy)).fetchall()
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)
    assert 0.8 < rows[0][3] < 1
    assert {row[4] for row in rows} == {200}
    assert corpus.query("proxy", other=str(raced)).fetchall()[0][2:4] == (1.0, 1.0)


def test_wrong_arguments_are_found_before_a_model_is_loaded(few: Race, family: Path) -> None:
    """Each is one line that names the option."""
    curate.score([str(few.source)], few.folder / "p", aligned=str(family / "base"))
    other = write(few.folder / "other.jsonl", [{"prompt": "question", "completion": "answer"}])
    pair = {"aligned": str(family / "base"), "misaligned": [str(family / "one")]}
    curate.score([str(other)], few.folder / "q", **pair)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"top": 0}, "--top 0: give a share"),
        ({"top": 1.5}, "--top 1.5: give a share"),
        ({"top": 5_000}, "--top 5000 is more than the pool has: 400"),
        ({"top": 0.05, "recall": 1}, "--recall 1: give"),
        ({"top": 0.05, "audit": 5}, "--audit 5: give"),
        ({"audit": 300}, "--audit needs --top"),
        ({"proxy": "p"}, "--proxy needs --top"),
        ({"top": 0.05, "proxy": few.folder / "none"}, "none: not a corpus"),
        ({"top": 0.05, "proxy": few.folder / "p"}, "p: ranks nothing, so it can't be a proxy"),
        (
            {"top": 0.05, "audit": 200, "proxy": few.folder / "q"},
            "q: lacks 400 of the 400 examples",
        ),
        ({"top": 0.05, "only": "true"}, "--only and --top: give one"),
        ({"only": "row"}, "isn't a condition"),
        ({"only": "row < 0"}, "--only 'row < 0': holds for no example"),
        ({"only": "row ="}, "--only 'row ='"),
        ({"only": "nothing = 1"}, "The columns are"),
        ({"only": "gap > 0"}, "No misaligned model has scored yet"),
    ]
    for asked, message in wrong:
        with pytest.raises(CurateError, match=re.escape(message)):
            few.score(limit=0, **asked)


def test_with_fewer_than_two_misaligned_models_there_is_nothing_to_race(few: Race) -> None:
    """Everything is scored, and the outcome says why."""
    found = few.score("one", top=0.05).race
    assert (found.passes, found.full) == (2 * FEW, 2 * FEW)
    assert "with one misaligned model there is nothing to race" in found.why
    base = str(few.family / "base")
    found = curate.score([str(few.source)], few.folder / "d", aligned=base, top=0.05).race
    assert found and "there is no misaligned model" in found.why


def test_a_raced_corpus_says_how_much_of_a_selection_it_holds(
    raced: Path, tmp_path: Path, cli: Cli
) -> None:
    """Export gives its recall, and refuses a low one unless it is told; so does status."""
    out = tmp_path / "out.jsonl"
    ran = cli("export", "-c", raced, "-o", out, "--top", 93)
    assert "the corpus was raced: recall 0.9" in ran.out, ran.err
    deep = ("export", "-c", raced, "-o", out, "--force", "--top", 470)
    refused = cli(*deep)
    fails(refused, "accept it with --min-recall 0.")
    least = refused.err.split("--min-recall ")[1].split()[0]
    assert cli(*deep, "--min-recall", least).code == 0
    fails(cli(*deep, "--min-recall", 2), "give a share from 0 to 1")
    fails(cli(*deep, "--hold-out", "one"), "accept it with --min-recall")
    assert "Raced to the top 100: recall 0.9" in cli("status", "-c", raced).out


def test_only_scores_what_a_condition_chooses(few: Race, cli: Cli) -> None:
    """A wrong one leaves the corpus as it was; a run without it completes the corpus."""
    few.score("one")
    with pytest.raises(CurateError, match="--only"):
        curate.score([], few.folder / "c", misaligned=[str(few.family / "two")], only="nothing = 1")
    assert few.ask("select count(*) from gaps") == [(FEW,)]
    few.limit = None
    curate.score([], few.folder / "c", misaligned=[str(few.family / "two")], only="rank <= 7")
    assert few.ask("select count(*) from scores where model = 'two'") == [(7,)]
    assert few.ask("select count(*) from gaps") == [(7,)]
    ran = cli("export", "-c", few.folder / "c", "-o", few.folder / "out.jsonl", "--top", 5)
    assert "scored with --only 'rank <= 7': how many" in ran.out, ran.err
    curate.score([], few.folder / "c")
    assert few.ask("select count(*) from gaps") == [(FEW,)]


def test_a_run_with_only_resumes_by_the_command_that_status_gives(few: Race, cli: Cli) -> None:
    """What the condition leaves out is not missing."""
    few.score("one")
    two = {"misaligned": [str(few.family / "two")], "only": "rank <= 120"}
    few.limit = 70
    with pytest.raises(KeyboardInterrupt):
        curate.score([], few.folder / "c", **two)
    said = cli("status", "-c", few.folder / "c").out
    assert "two: left out by --only: all for which this is false: rank <= 120" in said
    assert f"curate score -c {few.folder / 'c'} --only 'rank <= 120'" in said
    few.limit = None
    curate.score([], few.folder / "c", only="rank <= 120")
    assert few.ask("select count(*) from gaps") == [(120,)]
    assert "To score what is missing" not in cli("status", "-c", few.folder / "c").out
