"""A pass over a corpus: where windows are cut, and what is kept when one can't be made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.errors import CurateError
from curate.scoring import passes
from curate.system.progress import Silent
from tests.conftest import Family
from tests.tiny import tiny_adapter


@pytest.fixture
def at_third(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Windows of ten examples, and something that happens where the third one is encoded."""
    encode, calls = passes.encode, 0

    def set_up(happens: Callable[[], None]) -> None:
        def encoding(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                happens()
            return encode(*arguments, **options)

        monkeypatch.setattr(passes, "encode", encoding)
        monkeypatch.setattr(passes, "WINDOW", 10)

    return set_up


def scores(corpus: Path) -> int:
    """How many the corpus holds now."""
    return int(curate.open(corpus).sql("select count(*) from scores").fetchall()[0][0])


def test_an_error_in_the_next_window_keeps_the_one_before(
    family: Family, narrow: Path, tmp_path: Path, at_third: Any
) -> None:
    """It comes from the thread that encodes ahead, with its own text; the next run goes on."""

    def fail() -> None:
        raise CurateError("the third can't be encoded")

    at_third(fail)
    told = "the third can't be encoded; what was scored is kept: run it again to go on"
    with pytest.raises(CurateError, match=told):
        curate.score([str(narrow)], tmp_path / "c", aligned=str(family.aligned))
    assert scores(tmp_path / "c") == 20
    summary = curate.score([], tmp_path / "c", aligned=str(family.aligned))
    assert summary.models[0].scored == 20
    assert scores(tmp_path / "c") == 40


def test_a_model_that_changes_before_it_is_loaded_is_not_scored(
    family: Family, sources: Path, tmp_path: Path
) -> None:
    """A training run may write there for the hours that the models before it take."""
    adapter = shutil.copytree(family.medical, tmp_path / "medical")

    class Writing(Silent):
        def note(self, text: str) -> None:
            if text.startswith("medical (2 of 2): loading"):
                tiny_adapter(family.aligned, adapter, rank=1, seed=7)

    models: Any = {"aligned": str(family.aligned), "misaligned": [str(adapter)]}
    with pytest.raises(CurateError, match="model medical: its files changed since this run"):
        curate.score([str(sources)], tmp_path / "c", **models, limit=1, progress=Writing())
    found = curate.open(tmp_path / "c").sql("select distinct model from scores").fetchall()
    assert found == [("chat",)]
