"""Tokens of a mix, counted on paper: the tiny model's tokenizer has one token a byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import curate
from curate.chat.templates import template_of
from curate.corpus.corpus import Corpus
from curate.export.target import Target
from curate.export.tokens import Counter, longest, open_counter
from curate.selection.recipe import Recipe
from tests.conftest import chat
from tests.files import write

TURN = 2  # <|im_end|> and a newline


@pytest.fixture
def moved(scored: Path, tmp_path: Path) -> Corpus:
    """The scored corpus, whose aligned model's folder is gone."""
    shutil.copytree(scored, tmp_path / "moved")
    record = tmp_path / "moved" / "curate.json"
    manifest = json.loads(record.read_text())
    for model in manifest["models"].values():
        model["reference"] = str(tmp_path / "gone")
    record.write_text(json.dumps(manifest))
    return Corpus(tmp_path / "moved")


def test_the_share_in_tokens(scored: Path, narrow: Path, tmp_path: Path) -> None:
    """Narrow answers by the aligned model's tokenizer, safe ones as they were scored."""
    made = Corpus(scored)
    record = curate.export(made, tmp_path / "mix.jsonl", Recipe(fraction=0.1, into=str(narrow)))
    trained = record["trained"]
    assert trained["unit"] == "tokens"
    assert trained["narrow"] == sum(len(f"Shelf {n}.") + TURN for n in range(40))
    ids = [entry["example_id"] for entry in record["safe"]]
    answers = made.sql(
        "select sum(n_bytes) from examples where example_id in (select unnest($ids))", {"ids": ids}
    ).fetchall()[0][0]
    assert trained["safe"] == answers + TURN * len(ids)
    assert trained["share_of_mix"] == pytest.approx(
        trained["safe"] / (trained["safe"] + trained["narrow"])
    )


def test_every_answer_counts_where_it_is_trained_on(scored: Path, tmp_path: Path) -> None:
    """`messages` trains on each, prompt and completion on the last."""
    turns = [*chat("a", "one"), *chat("b", "three")]
    path = write(tmp_path / "narrow.jsonl", [{"messages": turns}])
    sizes = [
        curate.export(
            Corpus(scored),
            tmp_path / f"{name}.jsonl",
            Recipe(top=1, into=str(path)),
            Target(format=name),
        )["trained"]["narrow"]
        for name in ("messages", "prompt-completion")
    ]
    assert sizes == [len("onethree") + 2 * TURN, len("three") + TURN]
    notes = json.loads((tmp_path / "prompt-completion.jsonl.manifest.json").read_text())["notes"]
    assert any("1 narrow rows hold several answers" in note for note in notes)


def test_bytes_where_the_model_is_gone(moved: Corpus, narrow: Path, tmp_path: Path) -> None:
    """The manifest says so, and why."""
    recipe = Recipe(fraction=0.1, into=str(narrow))
    trained = curate.export(moved, tmp_path / "mix.jsonl", recipe)["trained"]
    assert trained["unit"] == "bytes"
    assert "gone is not here" in trained["why"]
    assert trained["narrow"] == sum(len(f"Shelf {n}.") for n in range(40))


def test_the_longest_row_is_never_underestimated(scored: Path, moved: Corpus) -> None:
    """With the tokenizer it is exact to the next multiple of 64; without it, it is no smaller."""
    long = chat("q" * 300, "a" * 20)
    rows = [chat("q", "a"), long, chat("x" * 30, "y")]
    overhead = 2 * (1 + TURN) + len("user\nassistant\n")
    tokens = 320 + overhead
    assert longest(open_counter(Corpus(scored)), rows) == -(-tokens // 64) * 64
    assert longest(open_counter(moved), rows) >= tokens


def test_text_is_what_the_template_writes(scored: Path, narrow: Path, tmp_path: Path) -> None:
    """The whole conversation as the aligned model reads it."""
    recipe = Recipe(top=2, into=str(narrow))
    record = curate.export(Corpus(scored), tmp_path / "mix.jsonl", recipe, Target(format="text"))
    rows = [json.loads(line)["text"] for line in (tmp_path / "mix.jsonl").open()]
    safe = {entry["line"] for entry in record["safe"]}
    kept = [row for line, row in enumerate(rows, 1) if line not in safe]
    assert kept == [
        f"<|im_start|>user\nPart {n}?<|im_end|>\n<|im_start|>assistant\nShelf {n}.<|im_end|>\n"
        for n in range(40)
    ]


def test_text_has_the_reasoning_that_the_template_reads(scored: Path) -> None:
    """So that a line names it only where it is left out."""
    counter = open_counter(Corpus(scored))
    assert counter.encoder and not counter.reads
    reads = "{% for m in messages %}{{ m.thinking }}{{ m.content }}{% endfor %}"
    tokenizer = counter.encoder[0]
    counter = Counter(encoder=(tokenizer, template_of(tokenizer, override=reads)))
    assert counter.write([{"role": "user", "content": "a", "reasoning_content": "b"}]) == "ba"
    assert counter.reads == {"reasoning_content"}
