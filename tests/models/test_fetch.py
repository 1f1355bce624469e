"""Models of the hub: what their ids mean, what is fetched when, and what is told of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from curate.errors import CurateError
from curate.models.fetch import tokenizer_folder
from curate.models.references import parse
from curate.models.resolve import Model, resolve
from curate.system.progress import Progress
from tests.hub import Hub

DEMO = Path(__file__).parents[2] / "data" / "models"
WEIGHTS = "GET cdn"


class Log(Progress):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[list[Any]] = []

    def note(self, text: str) -> None:
        """Remember a note."""
        self.notes.append(text)

    def start(self, label: str, total: int | None, unit: str = "examples") -> None:
        """Remember a step."""
        self.steps.append([label, total, unit, 0])

    def advance(self, examples: int, tokens: int = 0) -> None:
        """Count."""
        self.steps[-1][-1] += examples

    def stop(self) -> None:
        """Nothing more."""


@pytest.fixture
def acme(hub: Hub) -> Hub:
    """A hub with the demo's models: a chat model, an adapter, and two in folders."""
    hub.push("acme/chat", DEMO / "aligned")
    hub.push("acme/medical-lora", adapter("medical"))
    hub.push(
        "acme/loras", {f"{n}/{k}": v for n in ("legal", "code") for k, v in adapter(n).items()}
    )
    return hub


def adapter(name: str, base: str = "acme/chat") -> dict[str, bytes]:
    """The files of one of the demo's adapters, over this base, with some that no one needs."""
    config = json.loads((DEMO / name / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = base
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": (DEMO / name / "adapter_model.safetensors").read_bytes(),
        "optimizer.pt": b"none of ours",
    }


def refusal(aligned: str, *misaligned: str) -> str:
    """What a run with these models is refused with."""
    with pytest.raises(CurateError) as caught:
        resolve(aligned, misaligned)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "name", "place"),
    [
        ("acme/chat", "chat", "acme/chat"),
        ("gpt2@v1", "gpt2", "gpt2@v1"),
        ("x=acme/chat@v0.9", "x", "acme/chat@v0.9"),
        ("acme/chat@refs/pr/1", "chat", "acme/chat@refs/pr/1"),
        ("acme/chat@feature%2Fx", "chat", "acme/chat@feature%2Fx"),
        ("acme/loras/medical", "medical", "acme/loras/medical"),
        ("acme/loras/medical@r1", "medical", "acme/loras/medical@r1"),
        ("acme/loras@r1/medical", "medical", "acme/loras/medical@r1"),
        ("hf://acme/chat@v1", "chat", "acme/chat@v1"),
        ("https://huggingface.co/acme/chat", "chat", "acme/chat"),
        ("huggingface.co/acme/chat/?library=peft", "chat", "acme/chat"),
        ("https://hf.co/acme/loras/tree/r1/medical", "medical", "acme/loras/medical@r1"),
        ("https://huggingface.co/acme/chat/blob/main/config.json", "chat", "acme/chat@main"),
        ("https://huggingface.co/acme/chat/commit/0ab", "chat", "acme/chat@0ab"),
    ],
)
def test_addresses(argument: str, name: str, place: str) -> None:
    """Ids, folders in a repository and pasted addresses, and the one way in which they are kept."""
    found = parse(argument)
    assert (found[0], str(found[1])) == (name, place)
    assert parse(place)[1] == found[1]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("acme/chat:v1", "write the revision after @: acme/chat@v1"),
        ("hf://acme/chat:v1", "write the revision after @: hf://acme/chat@v1"),
        ("hf://datasets/acme/set", "a Hub dataset, not a model"),
        ("https://huggingface.co/spaces/acme/show", "a Hub space"),
        ("https://huggingface.co/acme", "not the address of a model. Write OWNER/NAME"),
        ("https://example.org/chat", "not the address of a model"),
        ("s3://bucket/chat", "Copy it here first"),
    ],
)
def test_other_addresses(argument: str, words: str) -> None:
    """What is no model's address is told with what to write."""
    with pytest.raises(CurateError, match=words):
        parse(argument)


def test_models_of_the_hub(acme: Hub) -> None:
    """They are found with their commits, and nothing but what loading needs is fetched."""
    log = Log()
    found = resolve(
        "acme/chat", ["acme/medical-lora", "acme/loras/legal", "c=acme/loras/code"], progress=log
    )
    local = resolve(str(DEMO / "aligned"), [str(DEMO / name) for name in ("medical", "legal")])
    assert [m.name for m in found] == ["chat", "medical-lora", "legal", "c"]
    assert found[0].fingerprint == local[0].fingerprint
    commits = [acme.repos[name].refs["main"] for name in ("acme/chat", "acme/medical-lora")]
    assert [m.commit for m in found[:2]] == commits
    assert [m.reference for m in found[2:]] == ["acme/loras/legal", "acme/loras/code"]
    assert not acme.asked("optimizer")
    assert len(acme.asked(WEIGHTS)) == 4
    size = round((DEMO / "aligned" / "model.safetensors").stat().st_size / 1e6)
    assert log.steps[0] == ["fetching acme/chat", size, "MB", log.steps[0][-1]]
    assert abs(log.steps[0][-1] - size) <= 1
    assert log.notes[0].startswith("acme/chat: fetching ") and "MB in 1 file" in log.notes[0]
    again = Log()
    assert resolve("acme/chat", ["acme/loras/legal"], progress=again)[0] == found[0]
    assert not again.notes and len(acme.asked(WEIGHTS)) == 4


def test_without_weights(acme: Hub) -> None:
    """A dry run looks everything up, fetches what is small, and knows no fingerprint."""
    found = resolve("acme/chat", ["acme/medical-lora"], weights=False)
    assert [m.fingerprint for m in found] == ["", ""]
    assert found[0].commit == acme.repos["acme/chat"].refs["main"]
    assert (found[0].tokenizer / "tokenizer.json").is_file()
    assert not acme.asked(WEIGHTS)
    whole = resolve("acme/chat", ["acme/medical-lora"])
    assert resolve("acme/chat", ["acme/medical-lora"], weights=False) == whole


def no_adapter(hub: Hub) -> str:
    """A repository whose folders alone hold models."""
    return "acme/loras"


def pickles(hub: Hub) -> str:
    """A checkpoint in pickles."""
    hub.push("acme/pickled", {"config.json": "{}", "pytorch_model.bin": b"x" * 99})
    return "acme/pickled"


def empty(hub: Hub) -> str:
    """A repository without weights, as a published name often is at first."""
    hub.push("acme/empty", {"config.json": "{}"})
    return "acme/empty"


def shard(hub: Hub) -> str:
    """A checkpoint that misses one of its shards."""
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files: dict[str, bytes | str] = {"config.json": "{}", "model-1.safetensors": b"x"}
    hub.push("acme/torn", files | {"model.safetensors.index.json": json.dumps(index)})
    return "acme/torn"


def gated(hub: Hub) -> str:
    """An adapter behind a gate."""
    hub.repos["acme/medical-lora"].gated = True
    return "acme/medical-lora"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_adapter, "holds no model.*Give one of its folders: legal, code"),
        (pickles, r"pickled weights \(pytorch_model\.bin\).*Convert them to safetensors"),
        (empty, r"acme/empty: has no weights \(model\.safetensors is missing\)"),
        (shard, r"model-2\.safetensors is missing, but model\.safetensors\.index\.json lists it"),
        (gated, "acme/medical-lora: gated. Accept the terms at"),
        (lambda _: "acme/chta", "Hub has no model acme/chta.* No such local folder either"),
        (lambda _: "x=acme/chat@v9", "acme/chat@v9: no such revision. There are: main"),
        (lambda _: "acme/loras/nope", "acme/loras/nope holds no model"),
    ],
)
def test_before_anything_large(acme: Hub, make: Callable[[Hub], str], words: str) -> None:
    """The last model named is refused before the weights of the first are fetched."""
    with pytest.raises(CurateError, match=words):
        resolve("acme/chat", ["acme/loras/legal", make(acme)])
    assert not acme.asked(WEIGHTS)


def test_an_adapter_cannot_be_aligned(acme: Hub) -> None:
    """That is found without its weights too."""
    assert "must have full weights" in refusal("acme/medical-lora")
    assert not acme.asked(WEIGHTS)


def test_another_base(acme: Hub, tmp_path: Path) -> None:
    """An adapter that names another base is told; the same one by another way is not."""
    same = [
        "acme/chat",
        "Acme/Chat",
        "/home/me/chat/",
        "~/hub/models--acme--chat/snapshots/0ab",
        "",
    ]
    for number, base in enumerate(["someone/else-7b", *same]):
        acme.push(f"acme/a{number}", adapter("medical", base))
    log = Log()
    resolve("acme/chat", [f"acme/a{number}" for number in range(6)], progress=log)
    (note,) = [note for note in log.notes if "fetching" not in note]
    assert note.startswith("a0: by its adapter_config.json, trained on someone/else-7b")
    shutil.copytree(DEMO / "aligned", tmp_path / "renamed")
    config = tmp_path / "renamed" / "config.json"
    named = json.loads(config.read_text("utf-8")) | {"_name_or_path": "acme/chat"}
    config.write_text(json.dumps(named), "utf-8")
    resolve(str(tmp_path / "renamed"), ["acme/a1"], progress=log)
    assert len([note for note in log.notes if "trained on" in note]) == 1


def test_offline(acme: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local cache does, by branch and by commit, and a note says so; half a copy does not."""
    found = resolve("acme/chat", ["acme/loras/legal"])
    resolve("acme/chat", ["acme/medical-lora"], weights=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    log = Log()
    assert resolve("acme/chat", ["acme/loras/legal"], progress=log) == found
    assert log.notes[0].startswith("acme/chat: the Hub can't be reached; using the copy")
    assert resolve(f"acme/chat@{found[0].commit}", [])[0].fingerprint == found[0].fingerprint
    assert tokenizer_folder("acme/chat", found[0].commit) == found[0].path
    assert "HF_HUB_OFFLINE is set" in refusal("acme/chat", "acme/medical-lora")
    assert "HF_HUB_OFFLINE is set" in refusal("acme/chat@v7")


def test_a_branch_that_moved(acme: Hub, tmp_path: Path) -> None:
    """It is another model with another commit; the old one is had by its commit."""
    old: Model = resolve("acme/chat", [])[0]
    weights = load_file(DEMO / "aligned" / "model.safetensors")
    shutil.copytree(DEMO / "aligned", tmp_path / "new")
    first, *rest = weights
    save_file(
        {first: weights[first] + 1} | {name: weights[name] for name in rest},
        tmp_path / "new" / "model.safetensors",
        metadata={"format": "pt"},
    )
    commit = acme.push("acme/chat", tmp_path / "new")
    new = resolve("acme/chat", [])[0]
    assert new.commit == commit != old.commit
    assert new.fingerprint != old.fingerprint
    assert resolve(f"acme/chat@{old.commit}", [])[0].fingerprint == old.fingerprint
