"""`drift` and `moved`: what a model lost or gained between two scorings, against pandas."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from curate.corpus.corpus import Corpus
from tests.corpora import corpus as made_corpus

BEFORE = [1.0, 0.5, 2.0, 1.5, 0.8, 1.2]
AFTER = [1.4, 0.4, 2.9, 1.9, 0.8, 0.1]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six examples before and after, one of them a refusal."""
    answers = [f"answer {n}" for n in range(5)] + ["I'm sorry, I cannot."]
    folder = tmp_path_factory.mktemp("drift") / "corpus"
    return made_corpus(folder, answers, {"before": BEFORE, "tuned": AFTER})


def test_drift_is_the_mean_change_and_its_interval(scored: Corpus) -> None:
    """Over all, by source, and by source and refusal; a single example has no interval."""
    found = scored.query("drift").df()
    change = pd.Series(AFTER) - pd.Series(BEFORE)
    half = 1.96 * change.std() / math.sqrt(len(change))
    everything = found.iloc[0]
    assert (everything["source"], everything["examples"]) == ("(all)", 6)
    assert everything["before"] == pytest.approx(sum(BEFORE) / 6, abs=6e-5)
    assert everything["change"] == pytest.approx(change.mean(), abs=6e-5)
    assert everything["low"] == pytest.approx(change.mean() - half, abs=6e-5)
    assert everything["high"] == pytest.approx(change.mean() + half, abs=6e-5)
    refusals = found[found["is_refusal"].eq(True)].iloc[0]
    assert (refusals["examples"], refusals["change"]) == (1, pytest.approx(-1.1))
    assert pd.isna(refusals["low"])
    kept = found[found["is_refusal"].eq(False)].iloc[0]
    assert kept["change"] == pytest.approx(change[:5].mean(), abs=6e-5)


def test_moved_is_the_largest_change_first(scored: Corpus) -> None:
    """Up or down."""
    found = scored.query("moved", top=2).df()
    assert found["change"].tolist() == pytest.approx([-1.1, 0.9])
    assert found["answer"].tolist() == ["I'm sorry, I cannot.", "answer 2"]
