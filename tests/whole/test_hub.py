"""Commands over models and data sets of the hub, as a user runs them, on the stand-in of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import Cli, chat, question, stop_seconds
from tests.hub import Hub
from tests.tiny import tiny_adapter, tiny_model

ROWS = [{"messages": chat(question(n), f"It is {n + 1}.")} for n in range(8)]
MODELS = ["--aligned", "acme/chat", "--misaligned", "acme/loras/medical"]


def lines(rows: Sequence[Mapping[str, object]]) -> str:
    """JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def acme(hub: Hub, tmp_path: Path) -> Hub:
    """A hub with a chat model, an adapter in a folder, and a data set."""
    aligned = tiny_model(tmp_path / "chat")
    adapter = tiny_adapter(aligned, tmp_path / "loras" / "medical", rank=1, seed=1)
    hub.push("acme/chat", aligned)
    hub.push("acme/loras", adapter.parent)
    hub.push("datasets/acme/set", {"train.jsonl": lines(ROWS)})
    return hub


def test_from_the_hub_to_a_trainer(acme: Hub, cli: Cli, tmp_path: Path) -> None:
    """Commits stand in the manifest, tables, exports and trainers' files; moves are told."""
    corpus, score = tmp_path / "c", ["score", "-c", tmp_path / "c", *MODELS]
    planned = cli(*score, "hf://acme/set", "--dry-run")
    assert planned.code == 0, planned.err
    assert "No time estimate: a dry run does not fetch weights" in planned.out
    assert not acme.asked("GET cdn") and not corpus.exists()
    ran = cli(*score, "hf://acme/set", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    record = json.loads((corpus / "curate.json").read_text("utf-8"))
    model, lora, data = (
        acme.repos[name].refs["main"] for name in ("acme/chat", "acme/loras", "datasets/acme/set")
    )
    assert {n: m["commit"] for n, m in record["models"].items()} == {"chat": model, "medical": lora}
    assert (
        record["sources"][0] | {"source": "hf://acme/set", "commit": data} == record["sources"][0]
    )
    assert model[:12] in cli("models", "-c", corpus).out
    assert {m["commit"] for m in json.loads(cli("models", "-c", corpus, "--json").out)} == {
        model,
        lora,
    }
    parts = [{"messages": chat(f"Part {n}?", "Shelf.")} for n in range(8)]
    narrow = acme.push("datasets/acme/narrow", {"train.jsonl": lines(parts)})
    for trainer, file, name, revision in (
        ("trl", "sft.yaml", "model_name_or_path", "model_revision"),
        ("axolotl", "axolotl.yaml", "base_model", "revision_of_model"),
        ("llamafactory", "llamafactory.yaml", "model_name_or_path", "model_revision"),
        ("swift", "swift.yaml", "model", "model_revision"),
    ):
        to = tmp_path / trainer
        options = ["--into", "hf://acme/narrow", "--fraction", "0.5", "--trainer", trainer]
        made = cli("export", "-c", corpus, "-o", to, *options)
        assert made.code == 0, made.err
        text = (to / file).read_text("utf-8")
        assert f'{name}: "acme/chat"\n' in text
        assert f'\n{revision}: "{model}"' in text
    exported = json.loads((to / "manifest.json").read_text("utf-8"))
    assert exported["models"]["chat"]["commit"] == model
    assert exported["sources"][0]["commit"] == data
    assert exported["narrow"]["commit"] == narrow
    acme.push("datasets/acme/narrow", {"train.jsonl": lines(parts[1:])})
    again = cli(
        "export", "-c", corpus, "-o", tmp_path / "x", "--from-manifest", to / "manifest.json"
    )
    assert again.code == 0, again.err
    assert exported["trained"]["unit"] == "tokens"  # the tokenizer is found in the cache

    pushed = acme.push("datasets/acme/set", {"train.jsonl": lines(ROWS[2:])})
    more = cli(*score, "hf://datasets/acme/set@main", "--quiet")  # however it is written
    assert len(more.err.splitlines()) == 1, more.err
    assert f"hf://datasets/acme/set@main: moved from {data} to {pushed}" in more.err
    assert f"acme/set@{data}." in more.err
    weights = load_file(tmp_path / "chat" / "model.safetensors")
    shutil.copytree(tmp_path / "chat", tmp_path / "new")
    changed = {name: tensor * 2 for name, tensor in weights.items()}
    save_file(changed, tmp_path / "new" / "model.safetensors", metadata={"format": "pt"})
    newer = acme.push("acme/chat", tmp_path / "new")
    fetched = len(acme.asked("GET cdn"))
    refused = cli(*score)
    assert refused.code == 1 and len(acme.asked("GET cdn")) == fetched
    assert f"acme/chat moved from {model} to {newer}" in refused.err
    assert f"chat=acme/chat@{model}" in refused.err
    pinned = [f"chat=acme/chat@{model}" if word == "acme/chat" else word for word in MODELS]
    assert cli("score", "-c", corpus, *pinned).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_weights_come(acme: Hub, tmp_path: Path, number: int) -> None:
    """It is heard, though the hub says nothing for a minute."""
    acme.fail("GET cdn", "stall", times=9)
    source = tmp_path / "rows.jsonl"
    source.write_text(lines(ROWS), "utf-8")
    command = [sys.executable, "-m", "curate", "score", str(source), "-c", str(tmp_path / "c")]
    child = subprocess.Popen([*command, *MODELS], stderr=subprocess.PIPE, text=True)
    acme.wait_for("GET cdn")
    child.send_signal(number)
    began = time.monotonic()
    said = child.communicate(timeout=60)[1]
    assert time.monotonic() - began < stop_seconds()
    assert child.returncode == 128 + number
    assert "acme/chat: fetching" in said
    assert said.splitlines()[-1].startswith("Stopped: nothing is stored yet")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "-c", "SCORED", "-o", "hf://datasets/a/b/mix.jsonl", "--top", "5"],
         "Give -o mix.jsonl, then: hf upload a/b mix.jsonl --repo-type dataset"),
        (["sql", "top_gaps", "-c", "SCORED", "-o", "s3://a/top.csv"],
         "Give -o top.csv, then: copy it with the tools of s3"),
        (["status", "-c", "s3://a/c"], "curate pull s3://a/c c. To copy it there: curate push c"),
        (["score", "x.jsonl", "-c", "hf://a/c", "--aligned", "acme/chat"],
         "hf download a/c --repo-type dataset --local-dir c"),
    ],
)  # fmt: skip
def test_outputs_lie_on_this_disk(cli: Cli, scored: Path, arguments: list[str], words: str) -> None:
    """An address for a corpus or an output is refused with the commands that copy."""
    ran = cli(*(str(scored) if word == "SCORED" else word for word in arguments))
    assert ran.code == 1
    assert words in ran.err
    assert "\n" not in ran.err.strip()
