"""A pass over a corpus: where windows are cut, and what is kept when one can't be made."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.backends.transformers import TransformersBackend
from curate.cli.score import kept
from curate.errors import CurateError
from curate.scoring import passes
from curate.system.progress import Silent
from curate.system.stopping import Stopped, stoppable
from tests.conftest import Family
from tests.files import write
from tests.tiny import tiny_adapter, tiny_model


@pytest.mark.parametrize(
    ("texts", "engines", "windows"),
    [
        ([2] * 4, 1, [3, 1]),  # the limit of examples
        ([6, 4, 2], 1, [2, 1]),  # characters up to their limit and no more
        ([6, 5], 1, [1, 1]),
        ([2, 50, 2], 1, [1, 1, 1]),  # one that is longer goes alone
        ([2, 50, 2], 3, [1, 1, 1]),
        ([2] * 10, 3, [9, 1]),  # engines that share a window get as many times larger ones
    ],
)
def test_windows_end_at_their_examples_or_characters(
    texts: list[int],
    engines: int,
    windows: list[int],
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three examples or ten characters an engine, whichever comes first."""
    monkeypatch.setattr(passes, "WINDOW", 3)
    monkeypatch.setattr(passes, "WINDOW_CHARACTERS", 10)
    monkeypatch.setattr(TransformersBackend, "engines", engines)
    handed: list[int] = []
    score = TransformersBackend.score

    def scoring(self: Any, encoded: Any, *rest: Any) -> Any:
        handed.append(len(encoded))
        return score(self, encoded, *rest)

    monkeypatch.setattr(TransformersBackend, "score", scoring)
    rows = [{"prompt": f"{n}", "response": "a" * (size - 1)} for n, size in enumerate(texts)]
    source = write(tmp_path / "rows.jsonl", rows)
    curate.score([str(source)], tmp_path / "c", aligned=str(family.aligned), device="cpu")
    assert handed == windows


class Watching(Silent):
    """Counts what is done in a step."""

    done = 0

    def start(self, label: str, total: int | None) -> None:
        """Begin anew."""
        self.done = 0

    def advance(self, examples: int, tokens: int = 0) -> None:
        """So many more."""
        self.done += examples


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


def in_time(holds: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    until = time.monotonic() + 60
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


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


def test_a_stop_while_the_next_window_is_encoded(
    family: Family, narrow: Path, tmp_path: Path, at_third: Any
) -> None:
    """What is scored is stored at once: encoding can't be stopped, and isn't waited for."""
    corpus, watching = tmp_path / "c", Watching()
    found: list[bool] = []

    def stop() -> None:
        found.append(in_time(lambda: watching.done == 20))
        os.kill(os.getpid(), signal.SIGTERM)
        found.append(in_time(lambda: scores(corpus) == 20))

    at_third(stop)
    told = "keeps 40 examples and 20 scores; run the same command again"
    with pytest.raises(Stopped, match=told), stoppable(), kept(corpus):
        curate.score([str(narrow)], corpus, aligned=str(family.aligned), progress=watching)
    assert found == [True, True]


@pytest.mark.parametrize("part", ["adapter", "base"])
def test_a_model_that_changes_before_it_is_loaded_is_not_scored(
    part: str, family: Family, sources: Path, tmp_path: Path
) -> None:
    """A training run may write there for the hours that the models before it take."""
    base, adapter, other = tmp_path / "chat", tmp_path / "medical", tmp_path / "other"
    shutil.copytree(family.aligned, base)
    shutil.copytree(family.medical, adapter)
    tiny_adapter(base, other, rank=1, seed=7)

    class Writing(Silent):
        def note(self, text: str) -> None:
            if text.startswith("medical (2 of 2): loading"):
                if part == "adapter":
                    shutil.copytree(other, adapter, dirs_exist_ok=True)
                else:
                    tiny_model(base, seed=7)

    score = partial(curate.score, [str(sources)], tmp_path / "c", aligned=str(base), limit=1)
    with pytest.raises(CurateError, match="model medical: its files changed since this run"):
        score(misaligned=[str(adapter)], progress=Writing())
    found = curate.open(tmp_path / "c").sql("select distinct model from scores").fetchall()
    assert found == [("chat",)]


def test_a_model_that_was_only_touched_is_scored(
    family: Family, sources: Path, tmp_path: Path
) -> None:
    """Or copied to the same place again: its numbers are the same."""
    base = tmp_path / "chat"
    shutil.copytree(family.aligned, base)

    class Touching(Silent):
        def note(self, text: str) -> None:
            if "loading" in text:
                (base / "model.safetensors").touch()

    done = curate.score(
        [str(sources)], tmp_path / "c", aligned=str(base), limit=1, progress=Touching()
    )
    assert done.models[0].scored == 5
