"""Named queries against the same sums in pandas, and how `curate sql` gives its rows."""

from __future__ import annotations

import csv
import io
import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus.corpus import _CLOSED, Corpus
from curate.corpus.queries import named, read_question
from curate.errors import CurateError
from tests.conftest import Cli, fails
from tests.corpora import corpus as made_corpus

MISALIGNED = ("code", "legal", "medical")
ANSWERS = [f"answer {n}" for n in range(60)]
ANSWERS[7] = "I'm sorry, I cannot."
ANSWERS[8] = "Answer, 5!"  # number 5 again but for case and punctuation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sixty examples under an aligned and three misaligned models, some gaps equal."""
    draw = random.Random(3)
    losses = {
        name: [round(draw.uniform(0.2, 3), 1) for _ in ANSWERS] for name in ("chat", *MISALIGNED)
    }
    return made_corpus(tmp_path_factory.mktemp("sql") / "corpus", ANSWERS, losses)


def answers(corpus: Corpus, name: str, *given: str) -> pd.DataFrame:
    """A named query's rows."""
    return corpus.run(*read_question(name, list(given))).df()


def top(corpus: Corpus, count: int, **given: object) -> set[str]:
    """The first of the ranking, refusals left out, by the macro itself."""
    ranked = corpus.gaps(**given).filter(f"rank_kept <= {count}")  # type: ignore[arg-type]
    return {row[0] for row in ranked.select("example_id").fetchall()}


# What they answer


@pytest.mark.parametrize("count", [1, 9, 60, 100])
def test_tops_are_the_ranking(made: Corpus, count: int) -> None:
    """What is sought without sorting everything stands where the ranking puts it, ties included."""
    ranked = made.gaps().order("rank").df()
    kept = ranked[~ranked["is_refusal"]].head(count)
    for found, wanted in (
        (answers(made, "top_gaps", f"top={count}"), kept),
        (answers(made, "top_gaps", f"top={count}", "refusals=true"), ranked.head(count)),
        (answers(made, "bottom_gaps", f"top={count}"), ranked[::-1].head(count)),
    ):
        assert found["example_id"].tolist() == wanted["example_id"].tolist()
        assert found["rank"].tolist() == wanted["rank"].tolist()


def test_ranks_are_gaps_without_texts(made: Corpus) -> None:
    """The same numbers under a key, and the ends of the ensemble."""
    shared = (
        "example_id, is_refusal, aligned_nll, misaligned_nll, misaligned_sd, gap, rank, rank_kept"
    )
    arguments = "epsilon := 0.2, hold_out := ['code']"
    numbers = made.sql(f"select {shared} from ranks({arguments}) order by rank").fetchall()
    assert numbers == made.sql(f"select {shared} from gaps({arguments}) order by rank").fetchall()
    ends = "select key, min(nll) as lowest, max(nll) as highest from model_ranks group by key"
    off = made.sql(
        f"select count(*) filter (lowest <> lowest_nll or highest <> highest_nll), count(*) "
        f"from ranks join ({ends}) using (key)"
    )
    assert off.fetchall() == [(0, 60)]


def test_model_gaps_are_gaps_of_smaller_ensembles(made: Corpus) -> None:
    """A model's gap is the gap with all others held out; without it, with it held out."""
    query = "select example_id, model, gap, gap_without from model_gaps(epsilon := 0.3)"
    each = made.sql(query).df()
    for model in MISALIGNED:
        rows = each[each["model"] == model].set_index("example_id").sort_index()
        others = [other for other in MISALIGNED if other != model]
        for column, hold_out in (("gap", others), ("gap_without", [model])):
            wanted = made.gaps(0.3, hold_out).df().set_index("example_id").sort_index()["gap"]
            np.testing.assert_allclose(rows[column], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", ["relative", "difference", "per_byte"])
def test_gap_of_is_the_formula_of_gaps(made: Corpus, metric: str) -> None:
    """The scalar macro and the ranking agree, for every metric."""
    off = made.sql(
        f"select count(*) from gaps(epsilon := 0.7, metric := '{metric}') "
        f"where gap <> gap_of(aligned_nll, misaligned_nll, 0.7, '{metric}')"
    )
    assert off.fetchall() == [(0,)]


def test_agreement_is_spearmans(made: Corpus) -> None:
    """Every pair of models, and each with the ensemble; equal gaps share a rank."""
    gaps = {"(ensemble)": made.gaps().df().set_index("example_id")["gap"]}
    for model in MISALIGNED:
        others = [other for other in MISALIGNED if other != model]
        gaps[model] = made.gaps(hold_out=others).df().set_index("example_id")["gap"]
    wanted = pd.DataFrame(gaps).corr("spearman")
    found = answers(made, "agreement")
    pairs = [*combinations(MISALIGNED, 2), *((model, "(ensemble)") for model in MISALIGNED)]
    assert set(zip(found["model"], found["other"], strict=True)) == set(pairs)
    for row in found.itertuples():
        assert row.rank_correlation == pytest.approx(wanted[row.model][row.other], abs=6e-5)
        assert row.examples == len(ANSWERS)


def test_leave_one_out_counts_what_changes(made: Corpus) -> None:
    """The overlap of the top without a model with the top of all."""
    whole = top(made, 15)
    found = answers(made, "leave_one_out", "top=15").set_index("left_out")
    assert set(found.index) == set(MISALIGNED)
    for model, row in found.iterrows():
        stay = len(whole & top(made, 15, hold_out=[model]))
        assert (row["top"], row["stay"], row["new"]) == (15, stay, 15 - stay)
    assert 0 < found["stay"].min() < 15


def test_epsilon_sweep_counts_what_changes(made: Corpus) -> None:
    """The overlap of the top at each epsilon with the top at 1, which need not be asked for."""
    usual = top(made, 15)
    found = answers(made, "epsilon_sweep", "top=15", "epsilons=0 0.1 5").set_index("epsilon")
    assert list(found.index) == [0, 0.1, 5]
    for epsilon, row in found.iterrows():
        assert row["same"] == len(usual & top(made, 15, epsilon=epsilon))
    assert answers(made, "epsilon_sweep", "top=15", "epsilons=1")["overlap"].tolist() == [1]


@pytest.mark.parametrize("given", ["epsilons=1 -0.5", "epsilons=inf", "epsilon=-1"])
def test_an_epsilon_below_zero_is_refused(cli: Cli, made: Corpus, given: str) -> None:
    """As `gaps` refuses it: the sum under the fraction could be nought."""
    ran = cli("sql", "epsilon_sweep", "-c", made.path, "-p", given)
    assert (ran.code, ran.out) == (1, "")
    assert "must not be negative or infinite" in ran.err


def test_a_default_top_leaves_something_out(made: Corpus) -> None:
    """A tenth of sixty examples, as in the report; one that is given is taken as it is."""
    usual = answers(made, "epsilon_sweep")
    assert usual["top"].tolist() == [6] * len(usual)
    assert usual["overlap"].min() < 1
    assert answers(made, "by_source").loc[0, ["in_top", "top_size"]].tolist() == [6, 6]
    assert answers(made, "by_length", "top=0.5")["top"].tolist() == [30]
    assert set(answers(made, "epsilon_sweep", "top=1000")["overlap"]) == {1}


@pytest.mark.parametrize("legal", ["tok", "another"], ids=["per token", "per byte"])
def test_disagreement_is_the_ends_of_model_gaps(tmp_path: Path, legal: str) -> None:
    """Row by row: widest first, each end with its model; of equal losses the names decide."""
    draw = random.Random(4)
    losses = {n: [round(draw.uniform(0.2, 3), 1) for _ in ANSWERS] for n in ("chat", *MISALIGNED)}
    losses["code"][:9] = losses["legal"][:9]
    corpus = made_corpus(tmp_path / "c", ANSWERS, losses, tokenizers={"legal": legal})
    each = corpus.sql("select example_id, nll, model, gap from model_gaps").fetchall()
    ends = []
    for example in {row[0] for row in each}:
        lowest, *_, highest = sorted(row[1:] for row in each if row[0] == example)
        ends.append((lowest[2] - highest[2], example, *lowest[1:], *highest[1:]))
    found = answers(corpus, "disagreement", "top=100")
    columns = ["example_id", "lowest_model", "lowest", "highest_model", "highest", "spread"]
    assert found[columns].values.tolist() == [
        [example, low, pytest.approx(low_gap, abs=6e-5), high, pytest.approx(high_gap, abs=6e-5),
         pytest.approx(-negative, abs=6e-5)]
        for negative, example, low, low_gap, high, high_gap in sorted(ends)
    ]  # fmt: skip
    assert len(found) == 60


def test_duplicates_look_past_case_and_punctuation(made: Corpus) -> None:
    """Only the pair that says the same is found, by answer; by prompt there is none."""
    found = answers(made, "duplicates")
    assert found["copies"].tolist() == [2]
    assert found["text"][0].casefold().strip("!").replace(",", "") == "answer 5"
    assert answers(made, "duplicates", "of=prompt").empty
    for title in ("title", "3", "true"):
        with pytest.raises(Exception, match="of=answer or -p of=prompt"):
            answers(made, "duplicates", f"of={title}")


def test_by_length_has_every_example_once(made: Corpus) -> None:
    """All answers have ten tokens: one band, with the refusal counted."""
    found = answers(made, "by_length", "top=10").to_dict("records")
    assert [(r["tokens_from"], r["tokens_to"], r["examples"]) for r in found] == [(8, 15, 60)]
    assert (found[0]["refusals"], found[0]["in_top"]) == (1, 10)


def test_queries_answer_with_one_misaligned_model(tmp_path: Path) -> None:
    """There is nothing to compare, and that is no error."""
    small = made_corpus(tmp_path / "c", ["one", "two"], {"chat": [1, 1], "bad": [2, 3]})
    assert answers(small, "leave_one_out").empty
    assert answers(small, "agreement")["rank_correlation"].tolist() == [1]
    assert answers(small, "disagreement")["spread"].tolist() == [0, 0]


# How they are given


def test_an_output_holds_the_printed_rows(cli: Cli, made: Corpus, tmp_path: Path) -> None:
    """Files of every format have the same rows; the ending says which; --force replaces."""
    query = "select example_id, gap, [rank, 1] as pair from gaps order by rank"
    rows = json.loads(cli("sql", query, "-c", made.path, "--format", "json").out)
    for name in ("a.csv", "a.json", "a.jsonl", "a.parquet"):
        ran = cli("sql", query, "-c", made.path, "-o", tmp_path / name)
        assert (ran.code, ran.out) == (0, f"{tmp_path / name}: 60 rows\n"), ran.err
    assert json.loads((tmp_path / "a.json").read_text()) == rows
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    with (tmp_path / "a.csv").open() as file:
        assert [float(row["gap"]) for row in csv.DictReader(file)] == [row["gap"] for row in rows]
    ran = cli("sql", query, "-c", made.path, "-o", tmp_path / "a.csv")
    assert ran.code == 1 and "--force" in ran.err
    assert cli("sql", query, "-c", made.path, "-o", tmp_path / "a.csv", "--force").code == 0
    empty = cli("sql", "from gaps where false", "-c", made.path, "-o", tmp_path / "none.json")
    assert empty.code == 0 and json.loads((tmp_path / "none.json").read_text()) == []


def test_an_output_fails_whole(cli: Cli, made: Corpus, tmp_path: Path) -> None:
    """No half file, and what is missing is said: an ending, a file for Parquet, sound SQL."""
    for arguments, words in (
        (["from gaps", "-o", tmp_path / "x.txt"], "End it in .csv"),
        (["from gaps", "--format", "parquet"], "--output FILE.parquet"),
        (["select error('no ' || rank) from gaps", "-o", tmp_path / "x.csv"], "no "),
    ):
        ran = cli("sql", *arguments, "-c", made.path)
        assert ran.code == 1 and words in ran.err and ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unsafe_reaches_other_files(cli: Cli, made: Corpus, tmp_path: Path) -> None:
    """Only with --unsafe may SQL read beside the corpus, write, or be several statements."""
    labels = tmp_path / "labels.csv"
    labels.write_text("rank,label\n1,best\n")
    query = f"select label from gaps join '{labels}' using (rank)"
    assert cli("sql", query, "-c", made.path).code == 1
    ran = cli("sql", query, "-c", made.path, "--unsafe", "--format", "jsonl")
    assert json.loads(ran.out) == {"label": "best"}
    script = f"copy (from gaps limit 2) to '{tmp_path / 'two.csv'}'; select 1 as a; select 2 as b"
    assert json.loads(cli("sql", script, "-c", made.path, "--unsafe", "--format", "jsonl").out) == {
        "b": 2
    }
    assert len((tmp_path / "two.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("given", ["top=x", "top=true", "top=1.5", "refusals=3", "refusals=no"])
def test_a_parameter_of_another_kind_is_named(made: Corpus, given: str) -> None:
    """The message says which, and what a value looks like."""
    with pytest.raises(CurateError, match=rf"-p {given}: give a value like {given.split('=')[0]}="):
        answers(made, "top_gaps", given)


def test_a_users_own_queries(cli: Cli, made: Corpus, tmp_path: Path) -> None:
    """A folder of .sql files is listed, shown and asked like the built-in ones, and wins."""
    (tmp_path / "best.sql").write_text(
        "-- My best. Parameters: top = 2\nselect rank from gaps where rank <= $top order by rank"
    )
    (tmp_path / "skips.sql").write_text("select 'mine' as skips")
    own = ["--queries", tmp_path]
    listed = cli("sql", "--list", *own).out
    assert "My best." in listed and "top_gaps" in listed
    assert "rank <= $top" in cli("sql", "--show", "best", *own).out
    jsonl = ["-c", made.path, *own, "--format", "jsonl"]
    assert len(cli("sql", "best", "-p", "top=3", *jsonl).out.splitlines()) == 3
    assert json.loads(cli("sql", "skips", *jsonl).out) == {"skips": "mine"}
    (tmp_path / "text.sql").write_text("-- Mine. Parameters: top = all\nselect $top as top")
    assert json.loads(cli("sql", "text", *jsonl).out) == {"top": "all"}
    ran = cli("sql", "best", "-c", made.path, "--queries", tmp_path / "none")
    assert ran.code == 1 and "--queries" in ran.err
    near = cli("sql", "bets", "-c", made.path, *own)
    assert "did you mean best?" in near.err


def test_show_explains_views_and_queries(cli: Cli) -> None:
    """A query's SQL, or a view's columns with type, unit and meaning; a wrong name is said."""
    assert "-- The examples with the largest gap" in cli("sql", "--show", "top_gaps").out
    shown = cli("sql", "--show", "gaps").out
    assert "misaligned_sd" in shown and "DOUBLE" in shown and "broken by example_id" in shown
    ran = cli("sql", "--show", "gap")
    assert ran.code == 1 and "no query is called gap" in ran.err


def test_what_memory_cannot_hold_goes_to_the_temporary_folder(
    made: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spilling works behind the lock, and leaves nothing where the user is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(_CLOSED, "memory_limit", "30MB")
    corpus = curate.open(made.path)
    spilling = (
        "select count(*) from "
        "(select a, row_number() over (order by hash(a)) as b from range(1000000) t(a) order by b)"
    )
    assert corpus.sql(spilling).fetchall() == [(1_000_000,)]
    assert list(tmp_path.iterdir()) == []


def test_every_query_that_ranks_takes_the_arguments_of_gaps(made: Corpus) -> None:
    """With -p and from Python: what it says is what the macro says with the same arguments."""
    given: dict[str, Any] = {"epsilon": 0.25, "hold_out": ["code"]}
    wanted = made.gaps(**given).order("rank").limit(5).select("example_id, round(gap, 4)")
    top = made.query("top_gaps", top=5, refusals=True, **given).select("example_id, gap")
    assert top.fetchall() == wanted.fetchall()
    typed = ["top=5", "refusals=true", "epsilon=0.25", "hold_out=code"]
    found = made.run(*read_question("top_gaps", typed)).select("example_id, gap")
    assert found.fetchall() == wanted.fetchall()
    for name, query in named().items():
        if "epsilon" in query.defaults:
            other = {"other": str(made.path)} if "other" in query.defaults else {}
            asked = made.query(name, metric="per_byte", hold_out=["code"], **other)
            assert asked.fetchall(), name
    assert made.query("agreement").fetchall() != made.query("agreement", epsilon=9).fetchall()
    with pytest.raises(duckdb.Error, match="hold_out names a model that is not in the ensemble"):
        made.query("refusals", hold_out="nobody").fetchall()
    with pytest.raises(CurateError, match="has no parameter epsilom"):
        made.query("refusals", epsilom=1)


def test_a_query_comes_from_a_file_or_standard_input(
    cli: Cli, made: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .sql file is asked without a folder of queries, its parameters and all."""
    file = tmp_path / "my.sql"
    file.write_text("-- Few. Parameters: top = 3\nselect rank from ranks order by rank limit $top;")
    ran = cli("sql", file, "-c", made.path, "-p", "top=2", "-p", "epsilon=2", "--format", "csv")
    assert ran.out.split() == ["rank", "1", "2"], ran.err
    monkeypatch.setattr("sys.stdin", io.StringIO("select 1 as one"))
    assert cli("sql", "-", "-c", made.path, "--format", "csv").out.split() == ["one", "1"]
    fails(cli("sql", tmp_path / "none.sql", "-c", made.path), "none.sql: can't be read")
