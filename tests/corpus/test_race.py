"""What a raced corpus tells of other questions than its race's own, against all scores."""

from __future__ import annotations

import numpy as np
import pytest

from curate.corpus.corpus import Corpus
from curate.corpus.race import Question, answer, field
from curate.corpus.writer import open_for_writing
from curate.report import advice, findings
from curate.storage.manifest import Race
from tests.corpora import corpus

COUNT, TOP, AUDIT = 2_500, 125, 300
QUESTIONS = {
    "its own": Question(),
    "another epsilon": Question(epsilon=0.1),
    "the difference": Question(metric="difference"),
    "one model held out": Question(hold_out=("three",)),
    "without refusals": Question(where="not is_refusal"),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    """A corpus with all scores, and one whose two later models scored only what one put first."""
    folder = tmp_path_factory.mktemp("both")
    draw = np.random.default_rng(0).standard_normal
    answers = [f"{'I cannot say' if n % 4 == 0 else 'It is'} {n}" for n in range(COUNT)]
    shared, aligned = draw(COUNT), 1 + 0.2 * np.abs(draw(COUNT))
    nlls = {"base": aligned}
    for name in ("one", "two", "three"):
        nlls[name] = aligned * (2 + 0.3 * shared + 0.1 * draw(COUNT))
    whole = corpus(folder / "whole", answers, {name: list(nll) for name, nll in nlls.items()})
    pool = field(whole, 0)
    first = dict(zip(pool.ids.to_pylist(), pool.values[pool.models.index("one")], strict=True))
    depth = sorted(first.values())[-COUNT // 4]
    sample = set(pool.ids[:AUDIT].to_pylist())
    rows = whole.sql("select example_id from examples order by row").fetchall()
    kept = [row in sample or first[row] >= depth for (row,) in rows]
    missing = {
        name: [
            float(nll) if scored or name in ("base", "one") else None
            for nll, scored in zip(values, kept, strict=True)
        ]
        for name, values in nlls.items()
    }
    corpus(folder / "raced", answers, missing)
    with open_for_writing(folder / "raced") as writer:
        writer.manifest.race = Race(0.05, 0.99, AUDIT, 0, depth=TOP, passes=[1, 1])
        writer.save()
    return whole, Corpus(folder / "raced")


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("top", [TOP, 5 * TOP])
def test_the_true_recall_is_in_the_interval(
    both: tuple[Corpus, Corpus], question: Question, top: int
) -> None:
    """Near the top little is missed; of five times as much, the estimate says how much is."""
    whole, raced = both
    truth, have = field(whole, 0, question), field(raced, 0, question)
    gaps = np.where(truth.asked, truth.final, -np.inf)
    best = np.argsort(-gaps, kind="stable")[:top]
    recall = np.isfinite(have.final[best]).mean()
    found = answer(raced, raced.manifest.race, question, top=top)
    assert found.low <= recall <= found.high
    assert abs(found.estimate - recall) < 0.03
    assert (recall < 0.95) == (top > TOP)


def test_the_report_says_how_deep_the_race_went(both: tuple[Corpus, Corpus]) -> None:
    """Of a corpus that was scored whole it says nothing."""
    whole, raced = (" ".join(advice.brief(findings.find(each))) for each in both)
    assert "raced to the top 125, with a recall of 0.9" in raced
    assert "raced" not in whole
