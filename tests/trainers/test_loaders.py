"""Trainers whose pins clash with the project's, each in its own environment: `make test-trainers`.

A trainer's own loader reads the folder as its user would, from the configuration in it; what it
would train on is compared with the mix, row by row. Nothing of a trainer is replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.export.target import Target
from curate.selection.recipe import Recipe
from tests.corpora import DEMO, demo_corpus

HERE = Path(__file__).parent
ENVIRONMENTS = os.environ.get("CURATE_TRAINERS")
RECIPE = Recipe(fraction=0.25, into=str(DEMO / "narrow.jsonl"), per_group={"topic": 2})
OPTIONS = {
    # The demo model's folder is not called like a known model, so ms-swift asks which it is.
    "swift": ["--model_type", "qwen2", "--template", "chatml"],
}
END = {"axolotl": "<|im_end|>", "llamafactory": "<|im_end|>\n", "swift": "<|im_end|>\n"}

pytestmark = pytest.mark.skipif(
    ENVIRONMENTS is None, reason="the trainers' environments are made by `make test-trainers`"
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The demo's general examples, scored."""
    return demo_corpus(tmp_path_factory.mktemp("trainers") / "corpus")


def loaded(trainer: str, folder: Path) -> dict[str, Any]:
    """The texts that a trainer's loader makes of a folder, what it trains on, and its order."""
    assert ENVIRONMENTS is not None
    python = Path(ENVIRONMENTS) / trainer / "bin" / "python"
    ran = subprocess.run(
        [python, HERE / f"rows_{trainer}.py", *OPTIONS.get(trainer, [])],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    return seen


def mixed(folder: Path, file: str) -> list[list[dict[str, str]]]:
    """The conversations of a data file, in its order."""
    roles = {"human": "user", "gpt": "assistant"}
    rows = [json.loads(line) for line in (folder / file).open(encoding="utf-8")]
    return [
        row["messages"]
        if "messages" in row
        else [
            {"role": roles.get(turn["from"], turn["from"]), "content": turn["value"]}
            for turn in row["conversations"]
        ]
        for row in rows
    ]


def trained_on(trainer: str, messages: list[dict[str, str]]) -> str:
    """The assistant's turns, as the demo model's template ends them."""
    turns = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    return "".join(turn + END[trainer] for turn in turns)


@pytest.mark.parametrize("trainer", sorted(END))
def test_a_loader_sees_every_row_in_its_place(scored: Corpus, tmp_path: Path, trainer: str) -> None:
    """Whole rows in the file's order, the loss on the answers, the safe ones where it says."""
    record = curate.export(scored, tmp_path / "mix", RECIPE, Target(trainer=trainer))
    seen = loaded(trainer, tmp_path / "mix")
    conversations = mixed(tmp_path / "mix", "train.jsonl")
    assert not seen["shuffles"]
    assert len(seen["rows"]) == len(conversations) == 50
    for row, messages in zip(seen["rows"], conversations, strict=True):
        for turn in messages:
            assert f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" in row["text"]
        assert row["trained"] == trained_on(trainer, messages)
    for entry in record["safe"]:
        answer = scored.sql(
            "select answer from examples where example_id = $id", {"id": entry["example_id"]}
        ).fetchall()[0][0]
        # Of several turns the last one was scored; these trainers train on every one.
        assert seen["rows"][entry["line"] - 1]["trained"].endswith(answer + END[trainer])


@pytest.mark.parametrize("trainer", sorted(END))
def test_a_loader_interleaves_sets_apart(scored: Corpus, tmp_path: Path, trainer: str) -> None:
    """It draws from both files by itself: no row twice, and about the share that was asked."""
    target = Target(trainer=trainer, placement="separate")
    curate.export(scored, tmp_path / "mix", RECIPE, target)
    seen = Counter(row["trained"] for row in loaded(trainer, tmp_path / "mix")["rows"])
    narrow, safe = (
        [trained_on(trainer, messages) for messages in mixed(tmp_path / "mix", f"{name}.jsonl")]
        for name in ("narrow", "safe")
    )
    assert not seen - Counter(narrow + safe)
    drawn = sum(seen[text] for text in safe)
    assert 0.1 <= drawn / seen.total() <= 0.3
    if trainer == "axolotl":  # it merges and shuffles, so that it trains on every row
        assert seen == Counter(narrow + safe)
