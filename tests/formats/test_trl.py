"""TRL trains on a mix as it is: three steps of the real trainer, on the demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import curate
from curate.corpus.corpus import Corpus
from curate.export.target import Target
from curate.selection.recipe import Recipe
from tests.corpora import DEMO, demo_corpus

BATCH = 4
STEPS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The demo's general examples, scored."""
    pytest.importorskip("trl", reason="trl is not installed")
    return demo_corpus(tmp_path_factory.mktemp("trl") / "corpus")


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str], Any]:
    """What `trl sft --config sft.yaml` trains on, in this folder: texts and answers, row by row.

    The parser, the reader of the mixture and the trainer are TRL's own; its steps are real and
    are only looked at.
    """
    from trl import SFTTrainer, get_dataset
    from trl.scripts.sft import make_parser

    seen: list[Any] = []

    class Watched(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            seen.append({name: inputs[name].clone() for name in ("input_ids", "labels")})
            return super().training_step(model, inputs, *rest, **options)

    monkeypatch.chdir(folder)
    options = ["--config", "sft.yaml", "--output_dir", "OUT", "--use_cpu", "true"]
    options += ["--max_steps", str(STEPS), "--report_to", "none", "--bf16", "false"]
    _, settings, model, data = make_parser().parse_args_and_config(options)
    settings.save_strategy = "no"
    rows = get_dataset(data)["train"]
    trainer = Watched(model.model_name_or_path, args=settings, train_dataset=rows)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == STEPS
    assert any((a != b).any() for a, b in zip(before, trainer.model.parameters(), strict=True))
    tokenizer = trainer.processing_class
    texts, answers = [], []
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            texts.append(tokenizer.decode(ids[ids != tokenizer.pad_token_id]))
            answers.append(tokenizer.decode(labels[labels != -100]))
    return texts, answers, settings


@pytest.mark.parametrize("name", ["prompt-completion", "messages"])
def test_batches_hold_the_safe_examples_where_the_manifest_says(
    scored: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Rows come in the file's order, whole, and the loss is on the answers alone."""
    recipe = Recipe(fraction=0.3, into=str(DEMO / "narrow.jsonl"))
    target = Target(placement="batch", batch_size=BATCH, trainer="trl", format=name)
    record = curate.export(scored, tmp_path / "mix", recipe, target)
    texts, answers, settings = trained(tmp_path / "mix", monkeypatch)
    assert len(texts) == BATCH * STEPS
    rows = [json.loads(line) for line in (tmp_path / "mix" / "train.jsonl").open()]
    for row, text, answer in zip(rows, texts, answers, strict=False):
        messages = row.get("messages") or row["prompt"] + row["completion"]
        for turn in messages:
            assert f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" in text
        turns = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        trained_on = turns if name == "messages" else turns[-1:]
        assert answer == "".join(turn + "<|im_end|>\n" for turn in trained_on)
    safe = {entry["line"]: entry["example_id"] for entry in record["safe"]}
    seen_safe = [line for line in safe if line <= BATCH * STEPS]
    assert {(line - 1) // BATCH for line in seen_safe} == set(range(STEPS))
    for line in seen_safe:
        found = scored.sql(
            "select answer from examples where example_id = $id", {"id": safe[line]}
        ).fetchall()
        assert answers[line - 1] == found[0][0] + "<|im_end|>\n"
    assert settings.max_length is None


def test_sets_apart_are_drawn_at_random_each_row_once(
    scored: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL takes all of both files by their shares, and shuffles them itself."""
    recipe = Recipe(fraction=0.3, into=str(DEMO / "narrow.jsonl"))
    target = Target(placement="separate", trainer="trl")
    record = curate.export(scored, tmp_path / "mix", recipe, target)
    from trl import get_dataset
    from trl.scripts.sft import make_parser

    monkeypatch.chdir(tmp_path / "mix")
    options = ["--config", "sft.yaml", "--output_dir", "OUT", "--bf16", "false"]
    _, settings, _, data = make_parser().parse_args_and_config(options)
    rows = get_dataset(data)["train"]
    assert len(rows) == record["output"]["rows"] == 52
    assert len({json.dumps(row["completion"]) for row in rows}) == 52
    assert settings.train_sampling_strategy == "random"
