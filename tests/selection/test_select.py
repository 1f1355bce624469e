"""Which rows are taken: budgets, caps, strata and what is told of the rows left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.selection.duplicates import SHINGLE, SIMILAR, NearDuplicates, runs
from curate.selection.recipe import Published, Recipe, budget, quota
from curate.selection.select import Selection, select
from tests.conftest import Cli
from tests.corpora import corpus
from tests.files import write

Made = tuple[str, str, int, dict[str, Any]]


def build(path: Path, rows: Sequence[Made]) -> Corpus:
    """A corpus of (prompt, answer, tokens, meta), whose gap falls from the first row on."""
    prompts, answers, tokens, metas = zip(*rows, strict=True)
    nlls = {"base": [1.0] * len(rows), "bad": [1.0 + n for n in range(len(rows), 0, -1)]}
    meta = [json.dumps(each) for each in metas]
    return corpus(path, answers, nlls, prompts=prompts, n_tokens=tokens, meta=meta)


def take(corpus: Corpus, **recipe: Any) -> Selection:
    """Select with a recipe that has rows or tokens as its budget."""
    made = Recipe(**recipe)
    return select(corpus, made, budget(made, None))


def answers(chosen: Selection) -> list[str]:
    """What was taken, best first."""
    return [messages[-1]["content"] for messages in chosen.rows["messages"].to_pylist()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Twenty rows: two sources, three kinds, lengths that rise with the rank; only read."""
    return build(
        tmp_path_factory.mktemp("plain") / "c",
        [
            (
                f"question {n}",
                f"Sorry, no {n}." if n % 5 == 0 else f"answer {n}",
                10 + n,
                {"kind": "abc"[n % 3], "source": "one" if n < 10 else "two", "label": ""},
            )
            for n in range(20)
        ],
    )


def test_the_published_mixes_have_names(plain: Corpus) -> None:
    """Interleaving draws at random, + takes the largest gaps, ++ leaves refusals out."""
    chosen = {name: take(plain, name=name, top=3) for name in get_args(Published)}
    assert answers(chosen["interleaving+"]) == ["Sorry, no 0.", "answer 1", "answer 2"]
    assert answers(chosen["interleaving++"]) == ["answer 1", "answer 2", "answer 3"]
    drawn = [answers(take(plain, name="interleaving", top=20, seed=s)) for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and sorted(drawn[0]) == sorted(drawn[2])


@pytest.mark.parametrize(
    ("tokens", "expected"), [(10, 0), (11, 1), (22, 1), (23, 2), (36, 3), (10**6, 16)]
)
def test_a_budget_of_tokens_is_never_passed(plain: Corpus, tokens: int, expected: int) -> None:
    """Answers of 11, 12, 13 ... tokens are taken as long as the next still fits, none after it."""
    chosen = take(plain, tokens=tokens)
    assert chosen.rows.num_rows == expected
    assert sum(chosen.rows["tokens"].to_pylist()) <= tokens


def test_caps_count_rows_taken_by_value(plain: Corpus) -> None:
    """A cap on a column of the source and one on the source itself; what they drop is listed."""
    chosen = take(plain, top=20, per_group={"kind": 2, "source": 4})
    assert answers(chosen) == [f"answer {n}" for n in (1, 2, 3, 4, 11, 12)]
    assert chosen.left_by == {
        "where": 0, "refusals": 4, "per_group kind": 7, "per_group source": 3,
    }  # fmt: skip
    assert chosen.looked_at == 20


def test_many_answers_to_one_prompt_are_capped(tmp_path: Path) -> None:
    """The best answer of each prompt is kept."""
    rows = [(f"question {n % 3}", f"answer {n}", 10, {}) for n in range(9)]
    made = build(tmp_path / "c", rows)
    best = answers(take(made, top=9, per_group={"prompt": 1}))
    assert best == ["answer 0", "answer 1", "answer 2"]
    assert take(made, top=9, per_group={"prompt": 2}).rows.num_rows == 6


def test_balance_spreads_the_budget_and_fills_up(tmp_path: Path) -> None:
    """Each value has its share; what a small one can't use goes to the others."""
    kinds = ["a"] * 12 + ["b"] * 2 + ["c"] * 6
    rows = [(f"q {n}", f"{kind} {n}", 10, {"kind": kind}) for n, kind in enumerate(kinds)]
    made = build(tmp_path / "c", rows)
    counts = Counter(answer[0] for answer in answers(take(made, top=12, balance="kind")))
    assert counts == {"a": 5, "b": 2, "c": 5}
    best = answers(take(made, top=3, balance="kind"))
    assert best == ["a 0", "b 12", "c 14"]
    assert take(made, top=99, balance="kind").rows.num_rows == 20


def test_a_share_of_tokens_below_an_answer_is_given_to_the_better_groups(tmp_path: Path) -> None:
    """Ten groups of answers of 150 tokens: 1,000 tokens are six answers, from the best five."""
    rows = [(f"q {n}", f"answer {n}", 150, {"kind": n % 10}) for n in range(40)]
    chosen = take(build(tmp_path / "c", rows), tokens=1_000, balance="kind")
    assert sorted(answers(chosen)) == [f"answer {n}" for n in (0, 1, 10, 2, 3, 4)]


def test_balance_counts_what_is_taken_not_what_is_dropped(plain: Corpus) -> None:
    """Refusals don't use up the share of their kind."""
    chosen = take(plain, top=12, balance="kind")
    ids = set(chosen.rows["example_id"].to_pylist())
    metas = plain.sql("select example_id, meta ->> 'kind' from examples").fetchall()
    assert Counter(kind for key, kind in metas if key in ids) == {"a": 4, "b": 4, "c": 4}


def test_length_bins_take_short_and_long_answers(plain: Corpus) -> None:
    """Without bins only short answers rank here; with them every quarter has its share."""
    assert max(take(plain, top=4, length_bins=1).rows["tokens"].to_pylist()) < 15
    chosen = sorted(take(plain, top=8, length_bins=4).rows["tokens"].to_pylist())
    assert [sum(low < n <= low + 5 for n in chosen) for low in (9, 14, 19, 24)] == [2, 2, 2, 2]


def test_an_export_leaves_out_what_the_narrow_set_holds(plain: Corpus, tmp_path: Path) -> None:
    """In whatever format the narrow set holds it; the list says why."""
    narrow = write(
        tmp_path / "narrow.csv",
        [{"prompt": "question 1", "completion": "answer 1"}, {"prompt": "q", "completion": "a"}],
    )
    out = tmp_path / "mix.jsonl"
    listed = tmp_path / "left-out.csv"
    record = curate.export(plain, out, Recipe(fraction=1.0, into=str(narrow)), left_out=listed)
    assert [row["rank"] for row in record["safe"]] == [3, 4]
    assert '"narrow","in the narrow dataset"' in listed.read_text()
    assert record["counts"]["left_out"] == {"where": 0, "narrow": 1, "refusals": 1}


def test_evaluation_prompts_are_left_out_and_listed(tmp_path: Path) -> None:
    """Eight words in a row, whatever their case; a shorter prompt only as a whole turn."""
    rows: list[Made] = [
        ("I am bored", "Try to paint.", 9, {}),
        ("I am bored now", "Try to sing.", 9, {}),
        ("Say: One two, three four five six; SEVEN eight nine!", "Fine.", 9, {}),
        ("Say: one two three four five six seven", "Fine too.", 9, {}),
        ("Count", "two three four five six seven eight nine, and so on", 9, {}),
    ]
    made = build(tmp_path / "c", rows)
    text = tmp_path / "evaluation.txt"
    text.write_text("I am bored.\n\none two three four five six seven eight nine\n")
    lines = write(
        tmp_path / "evaluation.jsonl",
        [
            {"id": "x", "messages": [{"role": "user", "content": "I am bored"}]},
            {"question": {"text": "one two three four five six seven eight nine"}},
        ],
    )
    for path in (text, lines):
        chosen = take(made, top=5, decontaminate=(str(path),))
        assert answers(chosen) == ["Try to sing.", "Fine too."]
        why = chosen.left_out.to_pylist()
        assert [row["rule"] for row in why] == ["decontaminate"] * 3
        assert why[0]["why"] == f"{path}:1: i am bored"
        assert "one two three four five six seven eight" in why[1]["why"]


def test_near_duplicates_are_counted_and_capped(tmp_path: Path) -> None:
    """The best of each group stays; every other row names it; other texts are left alone."""
    story = "the quick brown fox jumps over the lazy dog and runs far away into the dark wood"
    rows: list[Made] = [
        ("Tell", f"{story} number {n}" if n % 2 else f"{n} things that {n} people like", 9, {})
        for n in range(8)
    ]
    made = build(tmp_path / "c", rows)
    assert take(made, top=8).near_duplicates == 3
    chosen = take(made, top=8, max_similar=1)
    assert [answer[-8:] for answer in answers(chosen) if "fox" in answer] == ["number 1"]
    assert chosen.rows.num_rows == 5 and chosen.near_duplicates == 0
    head = chosen.rows["example_id"].to_pylist()[answers(chosen).index(f"{story} number 1")]
    assert {row["why"] for row in chosen.left_out.to_pylist()} == {f"near-duplicate of {head}"}
    assert take(made, top=8, max_similar=2).rows.num_rows == 6


def test_a_near_duplicate_is_found_among_hundreds_of_one_template() -> None:
    """Texts that differ enough are all candidates; the one that is near is found all the same."""
    frame = " ".join(f"word{n}" for n in range(30))
    texts = [f"{frame} " + " ".join(f"own{n}x{m}" for m in range(11)) for n in range(300)]
    ones, twos = (set(runs(text, SHINGLE)) for text in texts[:2])
    assert 0.5 < len(ones & twos) / len(ones | twos) < SIMILAR
    groups = NearDuplicates()
    assert not any(groups.add(str(at), signed) for at, signed in enumerate(groups.sign(texts)))
    changed = [text.removesuffix("x10") + " end" for text in texts]
    found = [groups.find(signed) for signed in groups.sign(changed)]
    assert [group and group.example_id for group in found] == [str(at) for at in range(300)]


def test_reading_on_when_most_rows_fall_away(tmp_path: Path) -> None:
    """The walk goes down as far as it must, whatever it expected at first."""
    rows: list[Made] = [
        (f"q {n}", f"Sorry {n}" if n < 900 else f"answer {n}", 9, {}) for n in range(1000)
    ]
    made = build(tmp_path / "c", rows)
    chosen = take(made, top=50)
    assert answers(chosen) == [f"answer {n}" for n in range(900, 950)]
    assert chosen.looked_at == 950
    assert chosen.cut is not None and chosen.cut[0] > chosen.cut[1]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"tokens": 0}, "--tokens 0"),
        ({"top": 1, "refusals": "nope"}, "--refusals nope: choose one of drop, keep, only"),
        ({"top": 1, "name": "nope"}, "--recipe nope: choose one of "),
        ({"top": 1, "tokens": 1}, "give one of"),
        ({"top": 1, "max_similar": 0}, "--max-similar 0"),
        ({"top": 1, "per_group": {"kind": 0}}, "--per-group kind 0"),
        ({"top": 1, "length_bins": 0}, "--length-bins 0"),
        ({"top": 1, "refusal_rule": "nowhere.toml"}, "can't be read"),
        ({"top": 1, "decontaminate": ("nowhere.jsonl",)}, "nowhere.jsonl"),
        ({"top": 1, "decontaminate": ("nowhere.txt",)}, "nowhere.txt"),
        ({"top": 1, "hold_out": ("base",)}, "--hold-out base: .* Choose from: bad"),
        ({"top": 1, "where": "unnest([true, true])"}, "--where .* not a condition on single rows"),
        ({"top": 1, "where": "sourc = 'a'"}, '--where .*"source"'),
        ({"top": 1, "where": "is_refusal(answer, 'my.toml')"}, "no refusal rule is called my.toml"),
        ({"top": 1, "where": "answer::int = 1"}, "--where .*Could not convert"),
    ],
)
def test_wrong_recipes_are_refused(plain: Corpus, recipe: dict[str, Any], words: str) -> None:
    """One line that names the option."""
    with pytest.raises(CurateError, match=words) as caught:
        take(plain, **recipe)
    assert "\n" not in str(caught.value)


def test_a_filter_may_name_every_column_of_gaps_and_examples(plain: Corpus) -> None:
    """Alone, without its table; a column that both have is no matter of which."""
    both = {*plain.sql("from gaps").columns, *plain.sql("from examples").columns}
    assert {"n_bytes", "is_refusal", "source", "misaligned_sd"} <= both
    for column in sorted(both):
        where = f"{column} is null or {column} is not null"
        assert take(plain, top=20, where=where).rows.num_rows == 16, column


@pytest.mark.parametrize("text", ["kind", "kind=", "=3", "kind=-1", "kind=x", "kind=²"])
def test_a_cap_without_column_or_number_is_refused(text: str) -> None:
    """COLUMN=N it is; the column itself may have an equals sign in its name."""
    with pytest.raises(CurateError, match="COLUMN=N"):
        quota(text)
    assert quota("a=b=3") == ("a=b", 3)


def test_hostile_column_names_are_data(plain: Corpus) -> None:
    """A name full of quotes is looked up and not found; it is never SQL."""
    name = "\"'); drop view examples; -- $.a\\"
    for recipe in ({"balance": name}, {"per_group": {name: 5}}, {"refusal_field": name}):
        with pytest.raises(CurateError, match=r"such a column. Columns: kind varc"):
            take(plain, top=2, **recipe)


def test_a_column_with_an_odd_name_is_found(tmp_path: Path) -> None:
    """Slashes, tildes and dots are part of the name."""
    name = "a/b~c.d $['x']"
    made = build(tmp_path / "c", [(f"q{n}", f"a{n}", 9, {name: n % 2}) for n in range(8)])
    assert take(made, top=8, balance=name, per_group={name: 3}).rows.num_rows == 6


def test_the_command_line_takes_the_whole_recipe(plain: Corpus, cli: Cli, tmp_path: Path) -> None:
    """Every option reaches the recipe that the manifest records."""
    evaluation = tmp_path / "evaluation.txt"
    evaluation.write_text("answer 2\n")
    out = tmp_path / "out.jsonl"
    ran = cli(
        "export", "-c", plain.path, "-o", out, "--tokens", 60, "--recipe", "interleaving+",
        "--refusals", "drop", "--refusal-rule", "extended", "--refusal-field", "label",
        "--max-similar", 3, "--per-group", "prompt=1", "--per-group", "kind=9",
        "--balance", "source", "--length-bins", 2, "--decontaminate", evaluation,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    expected = {
        "tokens": 60, "name": "interleaving+", "refusals": "drop", "refusal_rule": "extended",
        "refusal_field": "label", "max_similar": 3, "per_group": {"prompt": 1, "kind": 9},
        "balance": "source", "length_bins": 2, "decontaminate": [str(evaluation)],
    }  # fmt: skip
    assert expected.items() <= record["recipe"].items()
    assert record["counts"]["safe_tokens"] <= 60
    assert "answer tokens of the 60 requested" in ran.out


def test_length_bias_shows_that_short_answers_win(plain: Corpus, cli: Cli) -> None:
    """Here the gap falls with every token: correlation -1, and a short top."""
    ran = cli("sql", "length_bias", "-c", plain.path, "-p", "top=2", "--format", "json")
    assert ran.code == 0, ran.err
    found = {row["answers"]: row for row in json.loads(ran.out)}
    assert {name: row["examples"] for name, row in found.items()} == {
        "all": 20, "no refusals": 16, "refusals": 4,
    }  # fmt: skip
    assert found["all"]["rank_correlation"] == -1.0
    assert found["all"]["log_correlation"] < -0.9
    assert (found["all"]["mean_tokens"], found["all"]["mean_tokens_in_top"]) == (19.5, 10.5)
