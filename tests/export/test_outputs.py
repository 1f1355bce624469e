"""An export's files are there together or not at all, and the same bytes wherever they are made."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.export.target import Target
from curate.selection.recipe import Recipe
from tests.conftest import Cli
from tests.corpora import corpus, large_corpus
from tests.files import contents, write
from tests.hub import Hub

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["curate", *sys.argv[2:]]
from curate.cli.app import main
main()
"""


@pytest.fixture
def made(tmp_path: Path) -> Corpus:
    """Forty examples, every fourth a refusal, of two topics."""
    texts = [f"Sorry, no {n}." if n % 4 == 0 else f"answer {n}" for n in range(40)]
    meta = [json.dumps({"topic": "ab"[n % 2]}) for n in range(40)]
    nlls = {"base": [1.0] * 40, "bad": [50.0 - n for n in range(40)]}
    return corpus(tmp_path / "c", texts, nlls, meta=meta)


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A hundred narrow rows."""
    return write(
        tmp_path / "narrow.jsonl", [{"prompt": f"q{n}", "completion": "a"} for n in range(100)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "force"])
@pytest.mark.parametrize("limit", [512, 4096], ids=["rows", "manifest"])
@pytest.mark.parametrize("output", ["safe.jsonl", "safe.parquet", "folder"])
def test_a_full_disk_leaves_all_as_it_was(
    made: Corpus, tmp_path: Path, output: str, limit: int, earlier: bool
) -> None:
    """No file of the export takes its name, be it the rows or their manifest that don't fit."""
    place = tmp_path / "out"
    place.mkdir()
    trainer = "trl" if output == "folder" else None
    curate.export(made, tmp_path / output, Recipe(top=25), Target(trainer=trainer))
    sizes = {name: len(text) for name, text in contents(tmp_path).items() if "c/" not in name}
    rows = [size for name, size in sizes.items() if name.endswith((".jsonl", ".parquet"))]
    assert 512 < rows[0] < 4096 < max(sizes.values())
    if earlier:
        curate.export(made, place / output, Recipe(top=3), Target(trainer=trainer))
    before = contents(place)
    command = ["export", "-c", made.path, "-o", place / output, "--top", 25, "--force"]
    command += ["--trainer", trainer] if trainer else []
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *map(str, command)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout
    assert ran.stderr.startswith("Error: ") and ": can't be written (" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert contents(place) == before


def test_what_was_left_out_can_be_listed(made: Corpus, tmp_path: Path, cli: Cli) -> None:
    """By its rule, with the start of the texts, and of a refusal the words and their pattern."""
    listed = tmp_path / "left-out.csv"
    command = ("export", "-c", made.path, "-o", tmp_path / "safe.jsonl", "--top", 20)
    command += ("--per-group", "topic=8")
    ran = cli(*command, "--left-out", listed, "--dry-run")
    assert ran.code == 0, ran.err
    assert f"{listed} lists them" in ran.out and not list(tmp_path.glob("safe*"))
    rows = list(csv.DictReader(listed.open()))
    assert [rows[0][key] for key in ("rank", "rule", "why", "pattern", "prompt", "answer")] == [
        "1", "refusals", "a refusal: sorry", "sorry", "question 1", "Sorry, no 0.",
    ]  # fmt: skip
    capped = [row for row in rows if row["rule"] == "per_group topic"]
    assert {(row["why"], row["pattern"]) for row in capped} == {("8 already selected", "")}
    assert cli(*command, "--left-out", listed).err.endswith("use --force.\n")
    ran = cli(*command)
    assert "--left-out FILE.csv lists them" in ran.out
    assert len(list(tmp_path.glob("safe*"))) == 2
    assert "safe.jsonl exists: to replace it, add --force" in cli(*command, "--dry-run").out


def test_a_dry_run_shows_the_composition(narrow: Path, tmp_path: Path, cli: Cli) -> None:
    """By what it ranks, how much of each source, and rows no harder; it writes nothing."""
    nlls = {"base": [1.0] * 4, "bad": [3.0, 2.0, 1.0, 0.5], "worse": [9.0] * 4}
    small = corpus(tmp_path / "small", ["a", "b", "c", "d"], nlls)
    command = ("export", "-c", small.path, "-o", tmp_path / "mix.jsonl", "--into", narrow)
    ran = cli(
        *command, "--fraction", "3%", "--where", "rank > 1", "--dry-run", "--hold-out", "worse"
    )
    assert ran.code == 0, ran.err
    assert "mix.jsonl: would have 103 rows, 3 of them selected examples" in ran.out
    ranked = "ranked by the relative gap of bad, without worse, ε 1; refusals excluded (rule paper)"
    assert ranked in ran.out
    assert "among them are 2 rows with a gap of 0 or less" in ran.out
    assert re.search(r"made\.jsonl +3 +1 +0\.08333 +-0\.25", ran.out)
    assert not list(tmp_path.glob("mix*"))
    assert cli(*command, "--fraction", "x%").err.startswith("Error: --fraction x%: give a share")


def test_an_earlier_export_takes_no_other_option(made: Corpus, tmp_path: Path, cli: Cli) -> None:
    """An option of the recipe would be passed over in silence: it is refused by name."""
    curate.export(made, tmp_path / "a.jsonl", Recipe(top=3))
    again = ("export", "-c", made.path, "--from-manifest", tmp_path / "a.jsonl.manifest.json")
    for option in (("--refusals", "drop"), ("--seed", "0"), ("--per-group", "topic=1")):
        ran = cli(*again, "-o", tmp_path / "b.jsonl", *option)
        assert ran.code == 1
        assert ran.err.endswith(f"by its own recipe. Remove {option[0]}\n")
    assert cli(*again, "-o", tmp_path / "b.jsonl", "--json").code == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30,000 examples in three parts: many ties, near-duplicates, refusals, three topics."""
    return large_corpus(tmp_path_factory.mktemp("large") / "c", 30_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(top=1000, refusal_rule="extended", max_similar=1, per_group={"prompt": 1}),
        Recipe(
            tokens=20_000,
            name="interleaving",
            refusals="drop",
            balance="topic",
            where="rank % 7 <> 0",
        ),
    ],
    ids=["gap", "random"],
)
def test_threads_do_not_change_a_byte(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    """Rows, list and manifest are the same bytes on one thread and on four."""
    connect = duckdb.connect
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(
            "curate.corpus.corpus.duckdb.connect",
            lambda config, count=threads: connect(config=config | {"threads": count}),
        )
        made = Corpus(large)
        assert made.sql("select current_setting('threads')").fetchall() == [(threads,)]
        folder = tmp_path / str(threads)
        curate.export(made, folder / "safe.parquet", recipe, left_out=folder / "left-out.csv")
        found.append(contents(tmp_path / str(threads)))
        manifest = "safe.parquet.manifest.json"
        found[-1][manifest] = found[-1][manifest].replace(f"/{threads}/".encode(), b"/0/")
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_the_narrow_set_may_stand_on_the_hub(
    made: Corpus, tmp_path: Path, cli: Cli, hub: Hub
) -> None:
    """Its address reaches the reader whole."""
    rows = pa.table({"prompt": [f"q{n}" for n in range(20)], "completion": ["a"] * 20})
    pq.write_table(rows, tmp_path / "train.parquet")
    hub.push("datasets/acme/set", {"train.parquet": (tmp_path / "train.parquet").read_bytes()})
    ran = cli(
        "export", "-c", made.path, "-o", tmp_path / "mix.jsonl", "--fraction", 0.1,
        "--into", "hf://acme/set:train",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "22 rows, 2 of them selected examples" in ran.out
