"""Every format holds the same conversations, one schema in every row, and its own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import curate
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.export.export import export_again
from curate.export.target import Target
from curate.formats.openai import faults
from curate.reading.examples import example_id, read
from curate.selection.recipe import Recipe
from tests.corpora import corpus
from tests.files import write

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, TELL = {"role": "user", "content": "q?\n\n"}, {"role": "assistant", "content": " a"}
CHATS = [
    [ASK, TELL],
    [SYSTEM, ASK, TELL],
    [SYSTEM, ASK, TELL, {"role": "user", "content": "w"}, {"role": "assistant", "content": "z"}],
]
TRAINERS = ["trl", "axolotl", "llamafactory", "swift"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Twenty safe examples, and a refusal that ranks first and is left out; only read."""
    nlls = {"base": [1.0] * 21, "bad": [30.0 - n for n in range(21)]}
    texts = ["I'm sorry, I can't.", *(f"answer {n}" for n in range(20))]
    return corpus(tmp_path_factory.mktemp("made") / "c", texts, nlls)


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """Thirty rows of three kinds, with a column of their own."""
    rows = [{"messages": CHATS[n % 3], "id": n} for n in range(30)]
    return write(tmp_path / "narrow.jsonl", rows)


def ids(path: Path) -> list[str]:
    """The example ids that curate's own reader finds in a file, in order."""
    return [i for table, _ in read([str(path)]) for i in table["example_id"].to_pylist()]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["messages", "prompt-completion", "sharegpt", "alpaca"])
def test_a_round_trip_gives_the_same_ids(
    made: Corpus, narrow: Path, tmp_path: Path, name: str, ending: str
) -> None:
    """Written and read again, narrow and safe rows are the same examples at the same places."""
    out = tmp_path / f"mix{ending}"
    recipe = Recipe(fraction=0.2, into=str(narrow))
    record = curate.export(made, out, recipe, Target(format=name))
    found = ids(out)
    safe = {entry["line"]: entry["example_id"] for entry in record["safe"]}
    assert {line: found[line - 1] for line in safe} == safe
    kept = [each for line, each in enumerate(found, 1) if line not in safe]
    assert kept == [example_id(CHATS[n % 3]) for n in range(30)]


@pytest.mark.parametrize("name", ["messages", "prompt-completion", "sharegpt", "alpaca"])
def test_every_row_has_one_schema(made: Corpus, narrow: Path, tmp_path: Path, name: str) -> None:
    """The same keys in every row and every turn, in both kinds of file, with equal values."""
    recipe = Recipe(fraction=0.2, into=str(narrow))
    curate.export(made, tmp_path / "mix.jsonl", recipe, Target(format=name))
    curate.export(made, tmp_path / "mix.parquet", recipe, Target(format=name))
    rows = [json.loads(line) for line in (tmp_path / "mix.jsonl").open(encoding="utf-8")]
    assert len({tuple(row) for row in rows}) == 1
    turns = [t for row in rows for v in row.values() if isinstance(v, list) for t in v]
    assert len({tuple(turn) for turn in turns if isinstance(turn, dict)}) <= 1
    assert pq.read_table(tmp_path / "mix.parquet").to_pylist() == rows
    assert {row["id"] for row in rows} == {None, *range(30)}


@pytest.mark.parametrize("trainer", [None, *TRAINERS])
@pytest.mark.parametrize("placement", ["even", "separate"])
def test_a_folder_loads_with_datasets(
    made: Corpus, narrow: Path, tmp_path: Path, trainer: str | None, placement: Any
) -> None:
    """`load_dataset(folder)` reads the rows in their order, and none of the files beside them."""
    from datasets import interleave_datasets, load_dataset

    folder = tmp_path / "mix"
    recipe = Recipe(fraction=0.2, into=str(narrow))
    record = curate.export(made, folder, recipe, Target(placement=placement, trainer=trainer))
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *record["output"]["files"]}
    cache = str(tmp_path / "cache")
    if placement == "even":
        rows = load_dataset(str(folder), split="train", cache_dir=cache)
        found = [row["id"] for row in rows]
        assert [n for n in found if n is not None] == list(range(30))
        lines = [line for line, n in enumerate(found, 1) if n is None]
        assert lines == [entry["line"] for entry in record["safe"]]
        return
    sets = [
        load_dataset(str(folder), name, split="train", cache_dir=cache)
        for name in ("narrow", "safe")
    ]
    assert [len(each) for each in sets] == [30, 6]
    mixed = interleave_datasets(
        sets,
        probabilities=record["output"]["probabilities"],
        seed=0,
        stopping_strategy="all_exhausted_without_replacement",
    )
    assert len(mixed) == 36
    assert sum(row["id"] is None for row in mixed) == 6


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_is_to_choose_is_named(made: Corpus, tmp_path: Path, trainer: str) -> None:
    """Epochs, rate, batch, LoRA and CPU: comments only, and each valid YAML without its #."""
    curate.export(made, tmp_path / "safe", Recipe(top=3), Target(trainer=trainer))
    text = next((tmp_path / "safe").glob("*.yaml")).read_text()
    kept, block = text.split("# To change")
    lines = [line.removeprefix("# ") for line in block.splitlines()[1:]]
    named = yaml.safe_load("\n".join(line for line in lines if not line.startswith("On a CPU")))
    settings = yaml.safe_load(kept)
    assert not settings.keys() & named.keys() - {"bf16"}
    for word in ("epochs", "learning_rate", "batch_size", "lora_alpha"):
        assert any(word in key for key in settings | named), word
    assert {"use_cpu", "bf16"} & named.keys()


@pytest.mark.parametrize("placement", ["even", "batch", "shuffle", "separate"])
@pytest.mark.parametrize("trainer", [None, "llamafactory"])
def test_a_manifest_makes_the_same_folder_again(
    made: Corpus, narrow: Path, tmp_path: Path, placement: Any, trainer: str | None
) -> None:
    """Every file of it, byte for byte; the manifest but for the path."""
    target = Target(placement=placement, batch_size=4, trainer=trainer)
    curate.export(made, tmp_path / "one", Recipe(fraction=0.2, into=str(narrow), seed=3), target)
    export_again(made, tmp_path / "two", tmp_path / "one" / "manifest.json")
    for path in (tmp_path / "one").iterdir():
        same = (tmp_path / "two" / path.name).read_bytes()
        assert same.replace(b"/two", b"/one") == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("mix.jsonl", Target(trainer="trl"), "Give a folder"),
        ("mix.jsonl", Target(placement="separate"), "Give a folder"),
        ("mix.parquet", Target(format="openai"), r"Give a \.jsonl file"),
        ("mix", Target(placement="batch"), "add --batch-size"),
        ("mix", Target(placement="batch", batch_size=0), "at least 1"),
        ("mix", Target(format="alpaca", trainer="trl"), "reads prompt-completion or messages"),
        ("mix.jsonl", Target(format="text"), "needs the aligned model's chat template"),
        ("mix.csv", Target(), r"Give a \.jsonl or \.parquet file"),
        ("mix.v2", Target(), r"Give a \.jsonl or \.parquet file"),
        ("..", Target(), "exists"),
        ("mix", Target(placement="even", format="nope"), "--format nope: choose one of"),
        ("mix/..", Target(), "exists|Give a"),
    ],
)
def test_targets_that_do_not_fit_write_nothing(
    made: Corpus, narrow: Path, tmp_path: Path, name: str, target: Target, words: str
) -> None:
    """One line that says what to do, and no file."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CurateError, match=words) as caught:
        curate.export(made, tmp_path / name, Recipe(fraction=0.2, into=str(narrow)), target)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_force_replaces_exports_alone(made: Corpus, tmp_path: Path) -> None:
    """A folder with anything else in it stays as it is."""
    folder = tmp_path / "mix"
    curate.export(made, folder, Recipe(top=3))
    curate.export(made, folder, Recipe(top=4), force=True)
    assert json.loads((folder / "manifest.json").read_text())["counts"]["safe"] == 4
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(CurateError, match="no export made it"):
        curate.export(made, folder, Recipe(top=3), force=True)
    assert (folder / "thesis.txt").read_text() == "precious"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_failure_leaves_the_folder_as_it_was(made: Corpus, tmp_path: Path) -> None:
    """A narrow row that doesn't fit, met halfway through the writing."""
    folder = tmp_path / "mix"
    curate.export(made, folder, Recipe(top=3))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rows = [{"messages": CHATS[0]}] * 50 + [{"messages": [ASK, ASK, TELL]}]
    path = write(tmp_path / "odd.jsonl", rows)
    recipe = Recipe(fraction=0.1, into=str(path))
    with pytest.raises(CurateError, match=r"odd\.jsonl:51: .*LLaMA-Factory skips"):
        curate.export(made, folder, recipe, Target(trainer="llamafactory"), force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_openai_files_keep_the_apis_rules(made: Corpus, narrow: Path, tmp_path: Path) -> None:
    """Every row passes the validator; what the API doesn't know is left out, and named."""
    out = tmp_path / "mix.jsonl"
    recipe = Recipe(fraction=0.2, into=str(narrow))
    record = curate.export(made, out, recipe, Target(format="openai"))
    rows = [json.loads(line) for line in out.open(encoding="utf-8")]
    assert len(rows) == 36
    assert [list(faults(row["messages"])) for row in rows] == [[]] * 36
    assert "left out, with no place in openai: id" in record["notes"]
    with pytest.raises(CurateError, match="no fewer than 10"):
        curate.export(made, tmp_path / "few.jsonl", Recipe(top=9), Target(format="openai"))


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([*CHATS[0], ASK], "after the last answer"),
        ([{"role": "ipython", "content": "x"}, TELL], "the role 'ipython'"),
        ([ASK, TELL | {"weight": 0.5}], "0 or 1"),
        ([ASK, TELL | {"weight": True}], "0 or 1"),
        ([ASK, TELL | {"weight": 0}], "nothing to train on"),
        ([ASK | {"weight": 1}, TELL], "not the assistant's"),
        ([ASK, {"role": "tool", "content": "x"}, TELL], "tool_call_id"),
    ],
)
def test_the_api_validator_finds_each_fault(turns: list[dict[str, Any]], words: str) -> None:
    """One broken rule at a time."""
    assert any(words in fault for fault in faults(turns))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", ["messages", "prompt-completion", "sharegpt", "alpaca", "openai"])
def test_reasoning_of_safe_rows(narrow: Path, tmp_path: Path, name: str, alone: bool) -> None:
    """Kept where the format has a place for it; else a line says so."""
    kept = name not in ("alpaca", "openai")
    nlls = {"base": [1.0] * 10, "bad": [2.0] * 10}
    thought = corpus(tmp_path / "r", [f"answer {n}" for n in range(10)], nlls, reasoning="so")
    recipe = Recipe(top=10, into=None if alone else str(narrow))
    record = curate.export(thought, tmp_path / "mix.jsonl", recipe, Target(format=name))
    lines = (tmp_path / "mix.jsonl").read_text().splitlines()
    assert sum('"reasoning_content":"so"' in line for line in lines) == 10 * kept
    if kept:
        assert {entry["example_id"] for entry in record["safe"]} < {
            *ids(tmp_path / "mix.jsonl"),
            "",
        }
        assert "kept: the selected rows' reasoning_content" in record["notes"]
    else:
        lost = f"left out, with no place in {name}: "
        (note,) = (note for note in record["notes"] if note.startswith(lost))
        assert note.endswith("the turns' reasoning_content")


def test_weights_are_kept_for_the_api(made: Corpus, tmp_path: Path) -> None:
    """0 stays 0, a turn without one gets none, and what is trained counts so."""
    turns = [ASK, TELL | {"weight": 0}, {"role": "user", "content": "w"}, TELL]
    path = write(tmp_path / "narrow.jsonl", [{"messages": turns}] * 10)
    out = tmp_path / "mix.jsonl"
    record = curate.export(made, out, Recipe(top=1, into=str(path)), Target(format="openai"))
    assert json.loads(out.read_text().splitlines()[0])["messages"] == turns
    assert record["trained"]["narrow"] == 20
