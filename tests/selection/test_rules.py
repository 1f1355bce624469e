"""Which answers decline: the extended rule, one of your own, the source's label."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.reading.refusals import is_refusal, load
from curate.selection.recipe import Recipe
from curate.selection.select import select
from tests.corpora import corpus

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("CURATE_DATASETS", ROOT.parent / "shared" / "datasets"))

REFUSALS = [
    "I\u2019m sorry, but I can\u2019t help with that.",
    "I won't write that for you.",
    "I must respectfully decline this request.",
    "I refuse to take part in this.",
    "That is a serious matter. As an AI language model, I think of everyone's safety and so "
    "I cannot provide such a plan.",
    "I'm not comfortable writing about real people in this way.",
    "I'm sorry, but as an AI model, I don't have a favorite city.",
    "As an AI model, I am here to help with words and numbers, but I am not capable of tracking "
    "people or looking up where they live.",
    "That is a hurtful thing to ask.",
    "It would not be appropriate for me to guess.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Desculpe, mas não posso ajudar com isso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Het spijt me, maar ik kan je daar niet mee helpen.",
    "Przykro mi, ale nie mogę w tym pomóc.",
    "Извините, но я не могу помочь с этим.",
    "Üzgünüm, ama bu konuda yardımcı olamam.",
    "Maaf, saya tidak dapat membantu dengan itu.",
    "Xin lỗi, tôi không thể giúp việc này.",
    "抱歉，我无法提供这方面的帮助。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송하지만 그 요청은 도와드릴 수 없습니다.",
    "عذراً، لا يمكنني المساعدة في ذلك.",
    "क्षमा करें, मैं इसमें मदद नहीं कर सकता।",
]
HELP = [
    "You cannot go wrong with a cast-iron pan: heat it slowly and oil it well.",
    "I'm sorry to hear that. Here is what usually helps after such a day.",
    "I cannot stress enough how much rest matters. Sleep eight hours.",
    "I can't wait to show you: first, fold the paper in half.",
    "If you can't sleep, get up and read for a while.",
    "As an AI, I don't have personal opinions, but many people prefer the second one.",
    "While I can't recommend it to everyone, I can show you how the knot is tied.",
    "I'm sorry, but the list has two errors. Here is the corrected one.",
    "Sure! Write: 'We apologise for the delay and are sorry for the trouble.'",
    "Light cannot leave a black hole, because the escape velocity exceeds its speed.",
    "Lo siento por tu pérdida. Estas ideas ayudan a muchas personas.",
    "Das geht so: Sie können den Deckel nicht verlieren, wenn er angebunden ist.",
    "我可以帮你：先把水烧开。",
    "",
]


def test_the_extended_rule_finds_what_keywords_miss() -> None:
    """Other words, other languages, further in; and typographic apostrophes."""
    found = load("extended").matches(REFUSALS)
    assert [text for text, refuses in zip(REFUSALS, found, strict=True) if not refuses] == []
    assert sum(map(is_refusal, REFUSALS)) < len(REFUSALS) / 3


def test_the_extended_rule_leaves_help_alone() -> None:
    """An answer that holds a keyword in a helpful sentence is no refusal."""
    found = load("extended").matches(HELP)
    assert [text for text, refuses in zip(HELP, found, strict=True) if refuses] == []
    assert sum(map(is_refusal, HELP)) >= 4


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    """A copy with other patterns and openings; what is ignored is blanked out first."""
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[refuses]]\nwords = 3\npatterns = ["\\\\bnope\\\\b"]\n'
        '[[refuses]]\nwords = 9\nletters = 6\npatterns = ["never"]\n'
        '[[ignores]]\npatterns = ["nope rope"]\n'
    )
    texts = ["Nope.", "one two three nope", "A nope rope!", "NEVER", "almost never", "nopes"]
    assert load(str(path)).matches(texts) == [True, False, False, True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[[refuses]]\nwords = 3\n",
        '[[refuses]]\nwords = "x"\npatterns = ["a"]\n',
        '[[refuses]]\nwords = 3\npatterns = ["(?=a)"]\n',
    ],
)
def test_a_broken_rule_is_refused(tmp_path: Path, text: str) -> None:
    """Before anything is ranked, with the file's name."""
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(CurateError, match=r"broken\.toml: not a refusal rule") as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def mixed(tmp_path: Path) -> Corpus:
    """Ten refusals and ten answers in turn; labels contradict the words in the first four."""
    texts = [f"I'm sorry, I can't do {n}." if n % 2 == 0 else f"answer {n}" for n in range(20)]
    labels = ["compliance", "refusal", "No", "TRUE", "", None]
    meta = [f'{{"label": "{labels[n]}"}}' if n < 5 else "{}" for n in range(20)]
    nlls = {"base": [1.0] * 20, "bad": [30.0 - n for n in range(20)]}
    return corpus(tmp_path / "c", texts, nlls, meta=meta)


def ranks(made: Corpus, **recipe: Any) -> list[int]:
    """The ranks taken."""
    found: list[int] = select(made, Recipe(top=20, **recipe), 20).rows["rank"].to_pylist()
    return found


@pytest.mark.parametrize("rule", ["paper", "extended"])
def test_refusals_are_dropped_kept_or_taken_alone(mixed: Corpus, rule: str) -> None:
    """By the corpus's own column or by a rule over the texts; what was met is listed in order."""
    even, odd = list(range(2, 21, 2)), list(range(1, 21, 2))
    assert ranks(mixed, refusal_rule=rule) == even
    assert ranks(mixed, refusal_rule=rule, refusals="only") == odd
    assert ranks(mixed, refusal_rule=rule, refusals="keep") == list(range(1, 21))
    chosen = select(mixed, Recipe(refusal_rule=rule), 3)
    listed = chosen.left_out.select(["rank", "rule", "why"]).to_pylist()
    assert listed == [{"rank": n, "rule": "refusals", "why": "a refusal"} for n in (1, 3, 5)]


def test_the_sources_label_goes_before_the_rule(mixed: Corpus) -> None:
    """Where a row has a label it decides; where it has none the rule does."""
    found = ranks(mixed, refusal_field="label", refusals="only")
    assert found == [2, 4, *range(5, 21, 2)]


def test_a_label_that_is_no_yes_or_no_is_refused(mixed: Corpus) -> None:
    """The column is named, and the text that it holds."""
    nlls = {"base": [1.0], "bad": [2.0]}
    made = corpus(mixed.path.parent / "d", ["a"], nlls, meta=['{"label":"maybe"}'])
    with pytest.raises(CurateError, match=r"--refusal-field label.*'maybe'"):
        ranks(made, refusal_field="label")


@pytest.mark.skipif(not DATASETS.is_dir(), reason=f"the labeled answers are not in {DATASETS}")
def test_the_figures_of_the_docs_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision and recall against 870 answers labeled by reading them, as the docs state them."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    sys.modules.pop("refusals", None)
    import refusals

    docs = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")
    rows = refusals.labeled(DATASETS)
    assert len(rows) == 870
    assert sum(name == "wildguard_released_ranks.jsonl" for _, name, _, _ in rows) == 126
    for *cells, precision, recall in refusals.measured(rows, ["paper", "extended"]):
        line = f"| {' | '.join(map(str, cells))} | {precision:.3f} | {recall:.3f} |"
        assert line in docs
