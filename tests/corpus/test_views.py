"""The formula of sql/views/gaps.sql, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.corpus.corpus import Corpus
from curate.corpus.views import RESERVED, described
from curate.errors import CurateError
from curate.reading.refusals import load
from tests.conftest import Cli, fails
from tests.corpora import corpus
from tests.selection.test_rules import HELP, REFUSALS


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        ({}, (1.0, 4.0, pytest.approx(math.sqrt(2)), 2, 1.5)),  # the paper's: (4 - 1) / (1 + ε)
        ({"epsilon": 0}, (1.0, 4.0, pytest.approx(math.sqrt(2)), 2, 3.0)),
        ({"metric": "difference"}, (1.0, 4.0, pytest.approx(math.sqrt(2)), 2, 3.0)),
        ({"hold_out": ["worse"]}, (1.0, 3.0, None, 1, 1.0)),
    ],
)
def test_the_gap_is_the_formulas(
    arguments: dict[str, Any], row: tuple[object, ...], tmp_path: Path
) -> None:
    """Losses of 1, and of 3 and 5: their mean and spread, and the gap by each metric."""
    made = corpus(tmp_path / "c", ["an answer"], {"base": [1.0], "bad": [3.0], "worse": [5.0]})
    columns = "aligned_nll, misaligned_nll, misaligned_sd, n_models, gap, unit"
    assert made.gaps(**arguments).select(columns).fetchall() == [(*row, "nats/token")]


def test_easy_for_the_aligned_and_hard_for_the_misaligned_ranks_first(tmp_path: Path) -> None:
    """The sign: what the aligned model finds easier than the ensemble has a positive gap."""
    made = corpus(
        tmp_path / "c", ["hard for both", "safe", "harmful"],
        {"base": [4.0, 1.0, 3.0], "bad": [4.0, 3.0, 1.0]},
    )  # fmt: skip
    found = made.sql("select answer, sign(gap) from gaps order by rank").fetchall()
    assert found == [("safe", 1), ("hard for both", 0), ("harmful", -1)]


def test_other_tokenizers_compare_per_byte(tmp_path: Path) -> None:
    """Ten tokens of 2 and of 6 nats over an answer of 20 bytes are 1 and 3 nats a byte."""
    nlls = {"base": [2.0], "bad": [6.0]}
    made = corpus(tmp_path / "c", ["x" * 20], nlls, tokenizers={"bad": "another"})
    row = made.sql("select aligned_nll, misaligned_nll, gap, unit from gaps").fetchall()
    assert row == [(1.0, 3.0, 1.0, "nats/byte")]


def test_per_byte_can_be_asked_for(tmp_path: Path) -> None:
    """The metric `per_byte` does the same for models that share a tokenizer."""
    made = corpus(tmp_path / "c", ["x" * 20], {"base": [2.0], "bad": [6.0]})
    assert made.gaps(metric="per_byte").select("gap, unit").fetchall() == [(1.0, "nats/byte")]


def test_truncated_answers_do_not_rank_per_byte(tmp_path: Path) -> None:
    """Their bytes are those of the whole answer, their tokens are not."""
    nlls = {"base": [2.0, 2.0], "bad": [6.0, 6.0]}
    made = corpus(tmp_path / "c", ["whole", "cut"], nlls, truncated=[False, True])
    assert made.gaps(metric="per_byte").select("answer").fetchall() == [("whole",)]
    assert len(made.gaps().fetchall()) == 2


@pytest.mark.parametrize(
    ("names", "arguments", "words"),
    [
        (["base", "bad"], {"hold_out": ["nobody"]}, "hold_out names a model that is not in the"),
        (["base", "bad"], {"hold_out": ["base"]}, "hold_out names a model that is not in the"),
        (["base", "bad"], {"hold_out": ["bad"]}, "no misaligned model is left"),
        (["base", "bad"], {"metric": "median"}, "unknown metric"),
        (["base", "bad"], {"metric": None}, "unknown metric"),
        (["base", "bad"], {"epsilon": -1.0}, "must not be negative"),
        (["base", "bad"], {"epsilon": None}, "epsilon is null"),
        (["base"], {"hold_out": ["x"]}, "hold_out names a model"),
        (["base"], {}, "no misaligned model has"),
    ],
)
def test_wrong_arguments_are_refused(
    names: list[str], arguments: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Neither a typo in an argument nor a corpus without an ensemble ever gives a ranking."""
    made = corpus(tmp_path / "c", ["an answer"], {name: [1.0] for name in names})
    with pytest.raises(duckdb.Error, match=words):
        made.gaps(**arguments).fetchall()


def test_an_example_with_a_score_missing_does_not_rank(tmp_path: Path) -> None:
    """A mean over fewer models would not compare with the others."""
    nlls = {"base": [1.0, 1.0, None], "bad": [3.0, None, 3.0]}
    made = corpus(tmp_path / "c", ["all", "one missing", "no aligned"], nlls)
    assert made.gaps().select("answer").fetchall() == [("all",)]


def test_ties_are_broken_by_example_id(tmp_path: Path) -> None:
    """Equal gaps rank in the order of their ids, without gaps in the ranks."""
    answers = [f"answer {number}" for number in range(50)]
    made = corpus(tmp_path / "c", answers, {"base": [1.0] * 50, "bad": [2.0] * 50})
    found = made.sql("select example_id, rank from gaps order by rank").fetchall()
    assert found == list(zip(sorted(row[0] for row in found), range(1, 51), strict=True))


def test_any_rule_can_be_asked_in_sql(tmp_path: Path) -> None:
    """The same verdicts as an export's, for the rules that ship and, where unsafe, a file."""
    spaced = ["<think>I cannot</think>\u2003Yes", "one\u00a0\x1f\u3000SORRY", "w " * 10 + "sorry"]
    texts = [*REFUSALS, *HELP[:-1], *spaced]
    made = corpus(tmp_path / "c", texts, {"base": [1.0] * len(texts)})
    mine = tmp_path / "mine.toml"
    mine.write_text('[[refuses]]\nwords = 2\nletters = 6\npatterns = ["sorry"]\n')
    for opened, rule in (
        (made, "paper"),
        (made, "extended"),
        (Corpus(made.path, unsafe=True), mine),
    ):
        found = opened.sql(f"select is_refusal(answer, '{rule}') from examples order by row")
        assert [row[0] for row in found.fetchall()] == load(str(rule)).matches(texts)
    with pytest.raises(duckdb.Error, match=r"no refusal rule is called .*mine"):
        made.sql(f"select is_refusal(answer, '{mine}') from examples").fetchall()


def test_refusals_have_no_rank_among_the_kept(tmp_path: Path) -> None:
    """rank_kept counts on without them."""
    made = corpus(
        tmp_path / "c", ["I’m sorry, no.", "Gladly: here you go.", "Take care."],
        {"base": [1.0] * 3, "bad": [4.0, 3.0, 2.0]},
    )  # fmt: skip
    found = made.sql("select rank, rank_kept from gaps order by rank").fetchall()
    assert found == [(1, None), (2, 1), (3, 2)]


def test_epsilon_keeps_a_tiny_aligned_loss_from_winning(tmp_path: Path) -> None:
    """0.01 against 0.2 wins over 1 against 3 without ε and loses with it."""
    nlls = {"base": [0.01, 1.0], "bad": [0.2, 3.0]}
    made = corpus(tmp_path / "c", ["Yes.", "a real answer"], nlls)
    top = "select answer from gaps(epsilon := {}) where rank = 1"
    assert made.sql(top.format(0.0)).fetchall() == [("Yes.",)]
    assert made.sql(top.format(1.0)).fetchall() == [("a real answer",)]


def test_a_zero_division_never_ranks(tmp_path: Path) -> None:
    """An aligned loss of 0 with ε = 0 is infinite, so it is left out and not put first."""
    made = corpus(tmp_path / "c", ["sure", "fine"], {"base": [0.0, 1.0], "bad": [1.0, 2.0]})
    assert made.gaps(epsilon=0.0).select("answer").fetchall() == [("fine",)]


def test_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    """Losses are added up in a fixed order: the same bits on one thread and on eight."""
    draw = random.Random(5)
    nlls = {name: [draw.uniform(0.1, 9) for _ in range(5000)] for name in ("base", *"abcdefg")}
    made = corpus(tmp_path / "c", [f"answer {n}" for n in range(5000)], nlls)
    found = []
    for threads in (1, 2, 8):
        with duckdb.connect(
            made.path / "corpus.duckdb", read_only=True, config={"threads": threads}
        ) as connection:
            query = "select misaligned_nll, misaligned_sd, gap from gaps order by rank"
            found.append(connection.sql(query).fetchall())
    assert len(found[0]) == 5000
    assert found[0] == found[1] == found[2]


def test_the_plan_grows_with_the_models_not_with_their_square(tmp_path: Path) -> None:
    """With fifty models a plan that reads every model's parts for each of them takes minutes."""
    read = {}
    for count in (4, 8):
        names = ["base", *(f"bad{number}" for number in range(count))]
        made = corpus(tmp_path / str(count), ["an answer"], {name: [1.0] for name in names})
        with duckdb.connect(made.path / "corpus.duckdb", read_only=True) as connection:
            connection.execute("set explain_output = 'all'")
            plans = dict(connection.execute("explain select key, gap from ranks").fetchall())
        read[count] = plans["logical_plan"].upper().count("READ PARQUET")
    assert 4 < read[8] <= 2 * read[4]


def test_a_sources_own_columns_are_bare(cli: Cli, tmp_path: Path) -> None:
    """In `examples` and `export --where` by their names and types; what clashes stays in meta."""
    metas = [
        {"generator": "a", "score": 1, "tags": ["x"], "it's": True, "model": "m", "mixed": 1},
        {"generator": "b", "score": 2.5, "mixed": "one"},
        {"score": None},
    ]
    made = corpus(
        tmp_path / "c",
        ["one", "two", "three"],
        {"chat": [1, 1, 1], "bad": [2, 3, 4]},
        meta=[json.dumps(meta) for meta in metas],
    )
    found = made.sql('select generator, score, tags, "it\'s", mixed from examples order by row')
    assert list(map(str, found.types)) == ["VARCHAR", "DOUBLE", "JSON", "BOOLEAN", "VARCHAR"]
    assert found.fetchall() == [
        ("a", 1.0, '["x"]', True, "1"),
        ("b", 2.5, None, None, "one"),
        (None,) * 5,
    ]
    for name, hint in (("generator", "examples has it"), ("model", "meta ->> 'model'")):
        with pytest.raises(CurateError, match=re.escape(hint)):
            made.sql(f"select {name} from gaps")
    output = tmp_path / "o.jsonl"
    where = ["--where", "generator = 'b' and score > 2", "--per-group", "generator=1"]
    ran = cli("export", "-c", made.path, "--top", "3", *where, "-o", output)
    assert ran.code == 0, ran.err
    assert "two" in output.read_text() and output.read_text().count("\n") == 1
    for option in (["--where", "generater = 'b'"], ["--balance", "generater"]):
        ran = cli("export", "-c", made.path, "--top", "3", *option, "-o", tmp_path / "x.jsonl")
        fails(ran, "generator varchar", "score double", "source varchar")
    columns = {column.name for _, view in described().values() for column in view}
    assert columns - RESERVED == set()
