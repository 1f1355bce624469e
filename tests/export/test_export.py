"""From a recipe to files: what is taken, where it stands, and that it can be made again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.corpus.writer import open_for_writing
from curate.errors import CurateError
from curate.export.export import export_again
from curate.selection.recipe import Recipe
from tests.conftest import Cli
from tests.corpora import corpus, rows
from tests.files import write

ANSWERS = ["I'm sorry, I can't.", *(f"answer {number}" for number in range(1, 10))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Ten examples whose gap falls from the first, a refusal, to the last; only read."""
    nlls = {"base": [1.0] * 10, "bad": [20.0 - n for n in range(10)]}
    meta = [json.dumps({"label": "even" if n % 2 == 0 else "odd"}) for n in range(10)]
    return corpus(tmp_path_factory.mktemp("made") / "c", ANSWERS, nlls, meta=meta)


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """Forty narrow rows in the Alpaca format."""
    path = tmp_path / "narrow.json"
    made = [{"instruction": f"narrow {n}", "input": "", "output": f"reply {n}"} for n in range(40)]
    path.write_text(json.dumps(made))
    return path


def answers(path: Path) -> list[str]:
    """The last message of every row of a JSON Lines file."""
    return [json.loads(line)["messages"][-1]["content"] for line in path.open(encoding="utf-8")]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(top=3), ["answer 1", "answer 2", "answer 3"]),
        (Recipe(top=2, refusals="keep"), ["I'm sorry, I can't.", "answer 1"]),
        (Recipe(top=2, refusals="only"), ["I'm sorry, I can't."]),
        (Recipe(top=2, where="answer like '%3' or rank = 8"), ["answer 3", "answer 7"]),
        (Recipe(top=2, where="meta ->> 'label' = 'even' -- a comment"), ["answer 2", "answer 4"]),
        (Recipe(top=1, metric="difference"), ["answer 1"]),
    ],
)
def test_recipes(made: Corpus, tmp_path: Path, recipe: Recipe, expected: list[str]) -> None:
    """Refusals are a knob, and a filter is SQL over what was scored and read."""
    curate.export(made, tmp_path / "out.jsonl", recipe)
    assert answers(tmp_path / "out.jsonl") == expected


def test_a_fraction_is_a_share_of_the_narrow_set(
    made: Corpus, narrow: Path, tmp_path: Path
) -> None:
    """5 % of 40 is one safe row after every 20 narrow ones; both denominators are told."""
    record = curate.export(made, tmp_path / "mix.jsonl", Recipe(fraction=0.05, into=str(narrow)))
    found = answers(tmp_path / "mix.jsonl")
    assert [line for line, answer in enumerate(found, 1) if answer.startswith("answer")] == [21, 42]
    assert [a for a in found if a.startswith("reply")] == [f"reply {n}" for n in range(40)]
    assert [row["line"] for row in record["safe"]] == [21, 42]
    assert record["counts"]["share_of_narrow"] == 0.05
    assert record["counts"]["share_of_mix"] == pytest.approx(2 / 42)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_manifest_makes_the_same_bytes_again(
    made: Corpus, narrow: Path, tmp_path: Path, ending: str
) -> None:
    """Also after the corpus has grown by rows that would rank first."""
    first, second = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    made = Corpus(shutil.copytree(made.path, tmp_path / "c"))
    curate.export(made, first, Recipe(fraction=0.1, into=str(narrow)))
    with open_for_writing(made.path) as writer:
        writer.add_examples(rows(["a new one"]))
    export_again(Corpus(made.path), second, Path(f"{first}.manifest.json"))
    assert first.read_bytes() == second.read_bytes()
    narrow.write_text(narrow.read_text().replace("reply 0", "reply x"))
    with pytest.raises(CurateError, match="changed since"):
        export_again(made, tmp_path / f"three.{ending}", Path(f"{first}.manifest.json"))


def test_a_budget_beyond_what_there_is_is_told(made: Corpus, tmp_path: Path) -> None:
    """It exports what there is and the counts say what is missing and why."""
    counts = curate.export(made, tmp_path / "all.jsonl", Recipe(top=99, where="rank < 6"))["counts"]
    assert counts == {
        "ranked": 10,
        "unranked": 0,
        "looked_at": 5,
        "left_out": {"where": 5, "refusals": 1},
        "recall": None,
        "only": [],
        "near_duplicates": 0,
        "not_harder": 0,
        "wanted": 99,
        "wanted_tokens": None,
        "safe_tokens": None,
        "safe": 4,
        "share_of_narrow": None,
        "share_of_mix": 1.0,
    }


def test_a_cut_inside_the_noise_is_told(tmp_path: Path) -> None:
    """Two rows that differ by less than float32 noise around the cut."""
    nlls = {"base": [1.0] * 3, "bad": [3.0, 2.00001, 2.0]}
    made = corpus(tmp_path / "c", ["a", "b", "c"], nlls)
    assert curate.export(made, tmp_path / "2.jsonl", Recipe(top=2))["cut"]["inside_noise"] is True
    assert curate.export(made, tmp_path / "1.jsonl", Recipe(top=1))["cut"]["inside_noise"] is False


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(), "give one of --top N"),
        (Recipe(fraction=1.5, into="NARROW"), r"a share in \(0, 1\]"),
        (Recipe(fraction=0.1), "--into NARROW"),
        (Recipe(top=1, where="rank = 99"), "nothing to export"),
        (Recipe(top=1, epsilon=-1), "must not be negative"),
    ],
)
def test_wrong_recipes_write_nothing(
    made: Corpus, narrow: Path, tmp_path: Path, recipe: Recipe, words: str
) -> None:
    """One line that says what to do, and no file."""
    if recipe.into:
        recipe = replace(recipe, into=str(narrow))
    with pytest.raises(CurateError, match=words) as caught:
        curate.export(made, tmp_path / "out.jsonl", recipe)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out.jsonl*"))


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.manifest.json"])
def test_what_exists_is_kept(made: Corpus, tmp_path: Path, name: str) -> None:
    """An output, or a manifest whose rows are gone, is replaced only with force."""
    out, there = tmp_path / "out.jsonl", tmp_path / name
    there.write_text("precious")
    with pytest.raises(CurateError, match=f"{name}: already exists. .* --force"):
        curate.export(made, out, Recipe(top=1, refusals="keep"))
    assert [path.name for path in tmp_path.glob("out*")] == [name]
    assert there.read_text() == "precious"
    curate.export(made, out, Recipe(top=1), force=True)
    assert answers(out) == ["answer 1"] and there.read_text() != "precious"
    lost = tmp_path / "lost.jsonl"
    lost.symlink_to(tmp_path / "not-mounted.jsonl")
    with pytest.raises(CurateError, match=r"lost\.jsonl: already exists"):
        curate.export(made, lost, Recipe(top=1))


def test_the_narrow_set_is_never_written_over(made: Corpus, narrow: Path, tmp_path: Path) -> None:
    """Not even with --force, nor under another name of the same file."""
    before = narrow.read_bytes()
    same = tmp_path / "same.jsonl"
    same.symlink_to(narrow)
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"prompt": "q", "response": "a"}) + "\n")
    for into, output in ((lines, lines), (narrow, same), (lines.as_uri(), lines)):
        with pytest.raises(CurateError, match="this is the narrow dataset"):
            curate.export(made, output, Recipe(top=1, into=str(into)), force=True)
    curate.export(made, tmp_path / "mix.jsonl", Recipe(top=1, into=str(lines)))
    with pytest.raises(CurateError, match="this is the narrow dataset"):
        export_again(made, lines, tmp_path / "mix.jsonl.manifest.json", force=True)
    with pytest.raises(CurateError, match="this is the narrow dataset"):
        recipe = Recipe(top=1, into=str(narrow))
        curate.export(made, tmp_path / "m.jsonl", recipe, left_out=narrow, force=True)
    assert narrow.read_bytes() == before


def test_a_manifest_finds_what_it_names(
    made: Corpus, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder: beside it, or where --into says; a folder stands for its manifest."""
    project, moved = tmp_path / "project", tmp_path / "moved.jsonl"
    project.mkdir()
    monkeypatch.chdir(project)
    write(Path("narrow.jsonl"), [{"ask": f"narrow {n}", "reply": "yes"} for n in range(20)])
    Path("mine.toml").write_text('[[layouts]]\nprompt = ["ask"]\nanswer = ["reply"]\n')
    recipe = Recipe(fraction=0.1, into="narrow.jsonl", layouts="mine.toml")
    curate.export(made, "mix.jsonl", recipe)
    monkeypatch.chdir(tmp_path)
    again = ("export", "-c", made.path, "--from-manifest", project / "mix.jsonl.manifest.json")
    assert cli(*again, "-o", "beside").code == 1  # another ending
    assert cli(*again, "-o", "beside.jsonl").code == 0
    (project / "narrow.jsonl").rename(moved)
    assert "narrow.jsonl" in cli(*again, "-o", "gone.jsonl").err
    assert cli(*again, "-o", "moved-mix.jsonl", "--into", moved).code == 0
    for name in ("beside.jsonl", "moved-mix.jsonl"):
        assert Path(name).read_bytes() == (project / "mix.jsonl").read_bytes()
    write(moved, [{"ask": "another", "reply": "yes"}])
    assert "changed since" in cli(*again, "-o", "other.jsonl", "--into", moved).err
    curate.export(made, "safe", Recipe(top=3))
    assert cli(*again[:3], "--from-manifest", "safe", "-o", "safe-again").code == 0
    curate.report(made, "r.html", "safe")
    ran = cli(*again[:3], "--from-manifest", "safe", "-o", "safe-3", "--into", moved)
    assert "has no narrow dataset" in ran.err


def test_what_is_not_ranked_is_counted(tmp_path: Path) -> None:
    """An export of a corpus whose scoring was broken off says how much it could not see."""
    nlls = {"base": [1.0, 1.0, 1.0], "bad": [2.0, None, None]}
    half = corpus(tmp_path / "c", ["one", "two", "three"], nlls)
    record = curate.export(half, tmp_path / "top.jsonl", Recipe(top=1), command="curate export ...")
    assert (record["counts"]["ranked"], record["counts"]["unranked"]) == (1, 2)
    assert record["command"] == "curate export ..."


@pytest.mark.parametrize("text", ["", "[]", '{"safe": [{"example_id": "none"}]}', "NaN"])
def test_a_broken_export_manifest_is_refused(made: Corpus, tmp_path: Path, text: str) -> None:
    """Anything that isn't an export's manifest is named as such."""
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(CurateError, match="not an export's manifest"):
        export_again(made, tmp_path / "out.jsonl", path)
    with pytest.raises(CurateError, match="can't be read"):
        export_again(made, tmp_path / "out.jsonl", tmp_path / "none.json")


@pytest.mark.parametrize("gone", ["0" * 32, "none"])
def test_an_example_that_is_gone_is_named(made: Corpus, tmp_path: Path, gone: str) -> None:
    """A manifest of another corpus doesn't quietly make another file."""
    record: dict[str, Any] = curate.export(made, tmp_path / "a.jsonl", Recipe(top=1))
    record["safe"][0]["example_id"] = gone
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(CurateError, match=f"the example {gone} is not in this corpus"):
        export_again(made, tmp_path / "out.jsonl", tmp_path / "m.json")
